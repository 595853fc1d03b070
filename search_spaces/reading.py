"""Search spaces from YAML files.

`read` makes one frozen `SearchSpace` of a file, or raises one readable `SearchSpaceError` in which
every problem is a line: the rule, then the value.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search_spaces.budgets import LatencyBudget
from search_spaces.messages import SearchSpaceError, complaint, problems, shown
from search_spaces.schema import SearchSpace

LARGEST = 2**20
"""Bytes of the largest file that is read (our choice)."""


def read(path: Path) -> SearchSpace:
    """Read the search space in a YAML file; its name is the file's.

    Raises:
        SearchSpaceError: the file cannot be read, or breaks a rule; every problem is named.
    """
    written = _written(path)
    try:
        space = SearchSpace.model_validate({**written, "name": path.stem})
    except ValidationError as error:
        raise _refuse(path, *problems(error), *_known_keys(written)) from None
    return _with_places(space, path.parent.absolute())


def _known_keys(written: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line of all keys where one of a file's is none of them."""
    known = [key for key in SearchSpace.model_fields if key != "name"]
    return () if written.keys() <= {*known, "name"} else (f"The keys are {', '.join(known)}.",)


def _with_places(space: SearchSpace, folder: Path) -> SearchSpace:
    """Return the space with paths that are relative to its file's folder made absolute."""
    places: dict[str, Any] = {}
    if space.weights is not None:
        places["weights"] = folder / space.weights
    if isinstance(space.budget, LatencyBudget) and space.budget.table is not None:
        table = folder / space.budget.table
        places["budget"] = space.budget.model_copy(update={"table": table})
    return space.model_copy(update=places) if places else space


class _Plain(yaml.SafeLoader):
    """Reads plain values; an alias, which may stand for many, is refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias must be written out", problem_mark=mark)
        return super().compose_node(parent, index)


def _written(path: Path) -> dict[str, Any]:
    try:
        too_large = path.stat().st_size > LARGEST
    except OSError as error:
        raise _refuse(path, f"the file must be readable, but got {error.strerror}.") from None
    if too_large:
        raise _refuse(path, f"the file must have at most {LARGEST} bytes.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except OSError as error:
        raise _refuse(path, f"the file must be readable, but got {error.strerror}.") from None
    except RecursionError:
        raise _refuse(path, "the file must be YAML, but nests too deeply.") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise _refuse(path, f"the file must be YAML, but {complaint(error)}.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise _refuse(path, f"the file must map keys to values, but got {shown(content)}.")
    if "name" in content:
        rule = "`name` must be left out, it is the file's name"
        raise _refuse(path, f"{rule}, but got name={shown(content['name'])}.")
    return content


def _refuse(path: Path, *problems: str) -> SearchSpaceError:
    return SearchSpaceError("\n  ".join((f"{path.name} is not a search space:", *problems)))
