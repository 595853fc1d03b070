"""What a search space may say, and what is said back when it says something else.

A person writes YAML; `read` makes of it one frozen `SearchSpace` or one readable `SearchSpaceError`
in which every problem is a line: the rule, then the value.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

MOST_GROUPS = 256
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_WEIGHTS_ARGUMENTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")


# Where pydantic speaks of Python, or in other words than "Input should be ...".
_RULES = {
    "tuple_type": "must be a list",
    "invalid-json-value": "must be plain YAML: numbers, strings, lists, mappings",
}


class SearchSpaceError(ValueError):
    """A search space that cannot be found, read or understood; the message says why."""


def _between(low: int, high: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}")
        return value

    return check


def _at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def _number(value: object) -> float:
    """Read 21000000000, 2.1e10 (which YAML takes for a string) or 3 %."""
    if isinstance(value, str) and (percent := _PERCENT.fullmatch(value)):
        return float(percent[1]) / 100
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a number")


Bits = Annotated[StrictInt, AfterValidator(_between(2, 8))]
Groups = Annotated[StrictInt, AfterValidator(_between(1, MOST_GROUPS))]
Count = Annotated[StrictInt, AfterValidator(_at_least_one)]
Number = Annotated[float, BeforeValidator(_number)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(_Frozen):
    """A timm model: its name, which may have a tag, and what `timm.create_model` is told besides.

    >>> ModelSpec.model_validate("deit_tiny_patch16_224.fb_in1k").arguments
    {}
    """

    name: StrictStr
    arguments: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _a_plain_string_is_the_name(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping | cls):
            raise ValueError("must be a timm name, or a mapping with `name` and `arguments`")
        return value

    @field_validator("name")
    @classmethod
    def _has_a_name(cls, name: str) -> str:
        if not name or name != name.strip():
            raise ValueError("must be the name of a timm model")
        return name

    @field_validator("arguments")
    @classmethod
    def _names_no_weights(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if not arguments.keys().isdisjoint(_WEIGHTS_ARGUMENTS):
            raise ValueError("must name no weights, which are named by `weights`")
        return arguments


class UniformBudget(_Frozen):
    """The bit operations of this many groups in every layer."""

    uniform: Groups

    def __str__(self) -> str:
        return f"uniform {self.uniform}"


class BopsBudget(_Frozen):
    """Bit operations, for one image."""

    bops: Number

    @field_validator("bops")
    @classmethod
    def _is_positive(cls, bops: float) -> float:
        if not 0 < bops < float("inf"):
            raise ValueError("must be positive and finite")
        return bops

    def __str__(self) -> str:
        return f"{self.bops:.4g} BOPs"


class OverheadBudget(_Frozen):
    """The bit operations that grouping may add, as a share of those of one group everywhere."""

    overhead: Number

    @field_validator("overhead")
    @classmethod
    def _is_a_share(cls, overhead: float) -> float:
        if not 0 < overhead <= 1:
            raise ValueError("must be a share, more than 0 and at most 1, such as 3 % or 0.03")
        return overhead

    def __str__(self) -> str:
        return f"overhead {self.overhead:.2%}"


_BUDGET_KEYS = ("uniform", "bops", "overhead")


def _kind_of_budget(value: object) -> str | None:
    """Name the one key that a budget has; None if it has none, several or another."""
    if isinstance(value, UniformBudget | BopsBudget | OverheadBudget):
        return next(iter(type(value).model_fields))
    if isinstance(value, Mapping) and len(value) == 1:
        (key,) = value
        return key if key in _BUDGET_KEYS else None
    return None


Budget = Annotated[
    Annotated[UniformBudget, Tag("uniform")]
    | Annotated[BopsBudget, Tag("bops")]
    | Annotated[OverheadBudget, Tag("overhead")],
    Discriminator(
        _kind_of_budget,
        custom_error_type="budget_kind",
        custom_error_message="Input should have exactly one of the keys uniform, bops, overhead",
    ),
]


class SearchSpace(_Frozen):
    """What is searched: a model, its bits, the numbers of groups to choose from, the budget.

    `weights` None: the pretrained weights of `model`. `images` None: the caller brings them.
    """

    name: StrictStr
    description: StrictStr | None = None
    model: ModelSpec
    weights: Path | None = None
    images: StrictStr | None = None
    weight_bits: Bits
    activation_bits: Bits
    num_groups: tuple[Groups, ...]
    budget: Budget
    calibration_images: Count = 32
    search_images: Count = 64
    validation_images: Count = 1000
    sensitivity_images: Count = 32
    trials: Count = 100

    @field_validator("num_groups")
    @classmethod
    def _is_a_choice(cls, num_groups: tuple[int, ...]) -> tuple[int, ...]:
        if len(num_groups) < 2 or sorted(set(num_groups)) != list(num_groups):
            raise ValueError("must be at least two numbers, strictly increasing")
        return num_groups

    @model_validator(mode="after")
    def _budget_can_be_met(self) -> Self:
        fewest = self.num_groups[0]
        if isinstance(self.budget, UniformBudget) and self.budget.uniform < fewest:
            rule = f"`budget.uniform` must be at least the smallest of `num_groups`, {fewest}"
            raise ValueError(f"{rule}, but got budget.uniform={self.budget.uniform}.")
        return self


def read(path: Path) -> SearchSpace:
    """Read the search space in a YAML file; its name is the file's.

    Raises:
        SearchSpaceError: the file cannot be read, or breaks a rule; every problem is named.
    """
    written = _written(path)
    try:
        space = SearchSpace.model_validate({**written, "name": path.stem})
    except ValidationError as error:
        raise _refuse(path, *problems(error)) from None
    if space.weights is None:
        return space
    return space.model_copy(update={"weights": path.parent.absolute() / space.weights})


def problems(error: ValidationError) -> tuple[str, ...]:
    """Say what pydantic found in our words, one sentence for each problem.

    >>> try:
    ...     UniformBudget(uniform=0)
    ... except ValidationError as error:
    ...     problems(error)
    ('`uniform` must be between 1 and 256, but got uniform=0.',)
    """
    return tuple(_problem(details) for details in error.errors(include_url=False))


def _written(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refuse(path, f"the file must be readable, but got {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _refuse(path, f"the file must be YAML, but {_complaint(error)}.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise _refuse(path, f"the file must map keys to values, but got {content!r}.")
    if "name" in content:
        rule = "`name` must be left out, it is the file's name"
        raise _refuse(path, f"{rule}, but got name={content['name']!r}.")
    return content


def _complaint(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _refuse(path: Path, *problems: str) -> SearchSpaceError:
    return SearchSpaceError("\n  ".join((f"{path.name} is not a search space:", *problems)))


def _problem(details: ErrorDetails) -> str:
    """Write the rule, then the value."""
    name, kind = _place(details["loc"]), details["type"]
    if kind == "extra_forbidden":
        return f"every key must be a known one, but got {name}={details['input']!r}."
    if kind == "missing":
        return f"`{name}` must be given, but got nothing."
    if kind == "value_error":
        rule = str(details["ctx"]["error"])
        if not name:  # a rule about several values, which names them itself
            return rule
    else:
        rule = _RULES.get(kind, f"must {details['msg'].removeprefix('Input should ')}")
    return f"`{name}` {rule}, but got {name}={details['input']!r}."


def _place(location: tuple[int | str, ...]) -> str:
    """Write where a value stands: budget.bops, num_groups[1]."""
    if location[:1] == ("budget",):
        location = ("budget", *location[2:])  # the tag of the kind stands between
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")
