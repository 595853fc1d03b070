"""Budgets, and the numbers that people write in a search space."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
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
    model_serializer,
)

from search_spaces.messages import SearchSpaceError, complaint, problems

MOST_GROUPS = 256
SETTING = re.compile(r"w([2-8])a([2-8])g([1-9]\d*)")
"""Bits and groups everywhere, such as w4a4g8."""
_MILLISECONDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*ms\s*")
_UNIFORM = "uniform:"
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


def _latency(value: object) -> float | str:
    """Read 14 ms, or uniform:8 and uniform:w4a4g8: the latency of this setting everywhere."""
    if not isinstance(value, str):
        raise ValueError("must be a time such as 14 ms, or uniform:8")
    if value.startswith(_UNIFORM):
        text = value.removeprefix(_UNIFORM).strip()
        return f"{_UNIFORM}{_uniform(int(text) if text.isdecimal() else text)}"
    match = _MILLISECONDS.fullmatch(value)
    if match is None or not 0 < float(match[1]) < float("inf"):
        raise ValueError("must be a time such as 14 ms, or uniform:8")
    return float(match[1])


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


class LatencyBudget(Frozen):
    """The latency of one image, in ms, by a table that `igq profile` measured.

    >>> LatencyBudget.model_validate({"latency": "14 ms", "table": "latency.json"}).latency
    14.0
    """

    latency: Annotated[float | str, PlainValidator(_latency)]
    """14 ms, or uniform:8 (uniform:w4a4g8): the latency of this setting in every layer."""
    table: Path | None = None
    """The file, relative to the space's; None on the command line: the study's."""

    def __str__(self) -> str:
        known = isinstance(self.latency, str)
        return f"latency {self.latency}" if known else f"latency {self.latency:g} ms"

    @model_serializer
    def _as_written(self) -> dict[str, str]:
        known = self.latency if isinstance(self.latency, str) else f"{self.latency!r} ms"
        return {"latency": known, **({"table": str(self.table)} if self.table else {})}


_BUDGET_KEYS = ("uniform", "bops", "overhead")
_KINDS = (UniformBudget, BopsBudget, OverheadBudget, LatencyBudget)


def _kind_of_budget(value: object) -> str | None:
    """Name the one key that a budget has beside its table; None if it has none or several."""
    if isinstance(value, _KINDS):
        return next(iter(type(value).model_fields))
    if isinstance(value, Mapping) and "latency" in value:
        return "latency"
    if isinstance(value, Mapping) and len(value) == 1:
        (key,) = value
        return key if key in _BUDGET_KEYS else None
    return None


def _one_of(*keys: str) -> Discriminator:
    return Discriminator(
        _kind_of_budget,
        custom_error_type="budget_kind",
        custom_error_message=f"Input should have exactly one of the keys {', '.join(keys)}",
    )


BopsLimit = Annotated[
    Annotated[UniformBudget, Tag("uniform")]
    | Annotated[BopsBudget, Tag("bops")]
    | Annotated[OverheadBudget, Tag("overhead")],
    _one_of(*_BUDGET_KEYS),
]
Budget = Annotated[
    Annotated[UniformBudget, Tag("uniform")]
    | Annotated[BopsBudget, Tag("bops")]
    | Annotated[OverheadBudget, Tag("overhead")]
    | Annotated[LatencyBudget, Tag("latency")],
    _one_of(*_BUDGET_KEYS, "latency"),
]


def parse_budget(text: str) -> Budget:
    """Parse a budget of a command line: `uniform:6`, `bops:2.1e10`, `overhead:3%`, `latency:14ms`.

    Raises:
        SearchSpaceError: it is none of these.

    >>> parse_budget("uniform:6")
    UniformBudget(uniform=6)
    """
    key, colon, value = text.partition(":")
    if not colon or key.strip() not in (*_BUDGET_KEYS, "latency"):
        raise SearchSpaceError(
            "`budget` must be uniform:GROUPS, bops:NUMBER, overhead:SHARE or latency:TIME, "
            f"but got {text!r}."
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
