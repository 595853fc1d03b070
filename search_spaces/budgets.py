"""Budgets, and the numbers that people write in a search space."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    PlainValidator,
    StrictInt,
    Tag,
    ValidationError,
    field_validator,
)

from search_spaces.messages import SearchSpaceError, complaint, problems

MOST_GROUPS = 256
SETTING = re.compile(r"w([2-8])a([2-8])g([1-9]\d*)")
"""Bits and groups everywhere, such as w4a4g8."""
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def between(low: int, high: int) -> Callable[[int], int]:
    """Return a check that a number lies between two others, both included."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}")
        return value

    return check


def _at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def _at_least_zero(value: int) -> int:
    if value < 0:
        raise ValueError("must be at least 0")
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


def _uniform(value: object) -> int | str:
    """Read 8, or w4a4g8 where bits are searched too."""
    if isinstance(value, str) and SETTING.fullmatch(value):
        return value
    if isinstance(value, str):
        raise ValueError("must be a valid integer, or written like w4a4g8")
    if type(value) is not int:
        raise ValueError("must be a valid integer")
    return between(1, MOST_GROUPS)(value)


Groups = Annotated[StrictInt, AfterValidator(between(1, MOST_GROUPS))]
Count = Annotated[StrictInt, AfterValidator(_at_least_one)]
CountOrNone = Annotated[StrictInt, AfterValidator(_at_least_zero)]
Number = Annotated[float, BeforeValidator(_number)]


class Frozen(BaseModel):
    """Plain data that a person writes: no key but the known ones."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid")


class UniformBudget(Frozen):
    """The bit operations of this many groups in every layer; with bits as well: w4a4g8."""

    uniform: Annotated[int | str, PlainValidator(_uniform)]

    def __str__(self) -> str:
        return f"uniform {self.uniform}"


class BopsBudget(Frozen):
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


class OverheadBudget(Frozen):
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


def parse_budget(text: str) -> Budget:
    """Parse a budget as a command line has it: `uniform:6`, `bops:2.1e10` or `overhead:3%`.

    Raises:
        SearchSpaceError: it is none of these.

    >>> parse_budget("uniform:6")
    UniformBudget(uniform=6)
    """
    key, colon, value = text.partition(":")
    if not colon or key.strip() not in _BUDGET_KEYS:
        raise SearchSpaceError(
            f"`budget` must be uniform:GROUPS, bops:NUMBER or overhead:SHARE, but got {text!r}."
        )
    try:
        written = {"budget": {key.strip(): yaml.safe_load(value)}}
        return _Budgeted.model_validate(written).budget
    except ValidationError as error:
        raise SearchSpaceError(problems(error)[0]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SearchSpaceError(
            f"`budget` must be plain text, but got {text[:80]!r}: {complaint(error)}."
        ) from None


class _Budgeted(Frozen):
    budget: Budget
