"""Messages about a search space that breaks a rule: the rule, then the value."""

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from igq.errors import readable

# Where pydantic speaks of Python, or in other words than "Input should be ...".
_RULES = {
    "tuple_type": "must be a list",
    "path_type": "must be the path of a file",
    "invalid-json-value": "must be plain YAML: numbers, strings, lists, mappings",
}


class SearchSpaceError(ValueError):
    """A search space that cannot be found, read or understood; the message says why."""

    def __str__(self) -> str:
        return readable(super().__str__())


def problems(error: ValidationError) -> tuple[str, ...]:
    """Say what pydantic found in our words, one sentence for each problem.

    >>> from search_spaces.budgets import UniformBudget
    >>> try:
    ...     UniformBudget(uniform=0)
    ... except ValidationError as error:
    ...     problems(error)
    ('`uniform` must be between 1 and 256, but got uniform=0.',)
    """
    found = error.errors(include_url=False)
    more = len(found) - MOST_PROBLEMS
    said = [_problem(details) for details in found[:MOST_PROBLEMS]]
    return (*said, *([f"and {more} more."] if more > 0 else []))


LONGEST = 200
"""Characters of a value that a message shows (our choice)."""
MOST_PROBLEMS = 10
"""Problems that a message has (our choice)."""


def shown(value: object) -> str:
    """Return a value as a message shows it: the beginning of one that is long.

    >>> shown("abc"), len(shown("a" * 1000))
    ("'abc'", 204)
    """
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def complaint(error: Exception) -> str:
    """Return the problem of a file in a line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _problem(details: ErrorDetails) -> str:
    """Write the rule, then the value."""
    name, kind = _place(details["loc"]), details["type"]
    if kind == "extra_forbidden":
        return f"every key must be a known one, but got {name}={shown(details['input'])}."
    if kind == "missing":
        return f"`{name}` must be given, but got nothing."
    if kind == "value_error":
        rule = str(details["ctx"]["error"])
        if not name:  # a rule about several values, which names them itself
            return rule
    else:
        rule = _RULES.get(kind, f"must {details['msg'].removeprefix('Input should ')}")
    return f"`{name}` {rule}, but got {name}={shown(details['input'])}."


def _place(location: tuple[int | str, ...]) -> str:
    """Write where a value stands: budget.bops, num_groups[1]."""
    if location[:1] in (("budget",), ("max_size",), ("max_bops",)):
        location = (*location[:1], *location[2:])  # the tag of the kind stands between
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")[:LONGEST]
