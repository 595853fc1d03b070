"""The most that a model may take, as people write it in a search space."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Discriminator, StrictInt, Tag, model_validator

from search_spaces.budgets import Count, Frozen, between

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_WRITTEN = re.compile(rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})\s*")


class BytesSize(Frozen):
    """A number of bytes, written as 3.2 MB.

    >>> BytesSize.model_validate("3.2 MB")
    BytesSize(bytes=3200000)
    """

    bytes: Count

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_a_number_with_its_unit(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        match = _WRITTEN.fullmatch(value)
        if match is None or (size := round(float(match[1]) * _UNITS[match[2]])) < 1:
            raise ValueError("must be a size in B, kB, MB or GB, such as 3.2 MB")
        return {"bytes": size}

    def __str__(self) -> str:
        return f"{self.bytes / _UNITS['MB']:g} MB"


class WeightBitsSize(Frozen):
    """The size of the same model with weights of this many bits everywhere."""

    weight_bits: Annotated[StrictInt, AfterValidator(between(2, 8))]

    def __str__(self) -> str:
        return f"{self.weight_bits}-bit weights"


def _kind_of_size(value: object) -> str | None:
    if isinstance(value, str):
        return "bytes"
    if isinstance(value, BytesSize | WeightBitsSize):
        return next(iter(type(value).model_fields))
    if isinstance(value, Mapping) and len(value) == 1:
        (key,) = value
        return key if key in ("bytes", "weight_bits") else None
    return None


Size = Annotated[
    Annotated[BytesSize, Tag("bytes")] | Annotated[WeightBitsSize, Tag("weight_bits")],
    Discriminator(
        _kind_of_size,
        custom_error_type="size_kind",
        custom_error_message="Input should be a size such as 3.2 MB, or {weight_bits: 4}",
    ),
]
