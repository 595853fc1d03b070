"""What a search space may say, and what is said back when it says something else.

A person writes YAML; `read` makes of it one frozen `SearchSpace` or one readable `SearchSpaceError`
in which every problem is a line: the rule, then the value.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from search_spaces.budgets import (
    SETTING,
    BopsBudget,
    Budget,
    Count,
    CountOrNone,
    Frozen,
    Groups,
    UniformBudget,
)
from search_spaces.messages import SearchSpaceError, complaint, problems
from search_spaces.sizes import Size, WeightBitsSize

_WEIGHTS_ARGUMENTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")


def _bits(value: object) -> int | tuple[int, ...]:
    """Read 4, or the list [3, 4, 6] of which the search may choose for each layer."""
    several = isinstance(value, list | tuple)
    listed: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if not all(type(bits) is int for bits in listed):
        raise ValueError("must be a valid integer")
    if not all(2 <= bits <= 8 for bits in listed):
        raise ValueError("must be between 2 and 8")
    if not several:
        return int(listed[0])
    if len(listed) < 2 or sorted(set(listed)) != listed:
        raise ValueError("must be at least two numbers, strictly increasing")
    return tuple(listed)


Bits = Annotated[int | tuple[int, ...], PlainValidator(_bits), PlainSerializer(lambda bits: bits)]


class ModelSpec(Frozen):
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


class WeightMethod(StrEnum):
    """How weights are quantized."""

    NEAREST = "nearest"
    """Each weight to its nearest code, as in the paper."""
    CORRECTED = "corrected"
    """Codes, scales, biases and normalisations such that predictions change least.

    Where bits are searched only codes and scales: normalisations and biases would have to follow
    the bits of every layer.
    """


class SoftmaxMethod(StrEnum):
    """What the groups of a softmax map are, and whether its rows keep their sum."""

    ROWS = "rows"
    """Each row with the group it picks, as in the paper."""
    UNIT_ROWS = "unit_rows"
    """So, and what a row loses of its sum of 1 is spread over its keys."""
    KEYS = "keys"
    """Each row's keys are in groups side by side, each with its own range; the sum is kept."""


class Assignment(StrEnum):
    """How channels pick their groups; named as igq.Assignment names it."""

    NEAREST = "nearest"
    """The bounds nearest to the channel's range, as in the paper."""
    LEAST_ERROR = "least_error"
    """The bounds with the least expected error of the channel's values."""


class InputMethod(StrEnum):
    """What the groups of a linear layer's input are."""

    CHANNELS = "channels"
    """Each channel picks one of the fitted groups in each image, as in the paper."""
    TOKENS = "tokens"
    """Each token's channels are in groups side by side, each with its own range."""


class Rotation(StrEnum):
    """Which linear layers compute in a rotated basis; named as igq.Rotation names it."""

    NONE = "none"
    """None, as in the paper."""
    WIDE = "wide"
    """Those with more outputs than inputs."""
    ALL = "all"
    """All in the blocks."""


class SearchSpace(Frozen):
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
    weight_method: WeightMethod = WeightMethod.CORRECTED
    softmax_method: SoftmaxMethod = SoftmaxMethod.KEYS
    input_method: InputMethod = InputMethod.TOKENS
    rotation: Rotation = Rotation.WIDE
    assignment: Assignment = Assignment.LEAST_ERROR
    """How channels pick their groups, where `input_method` has them pick."""
    num_groups: tuple[Groups, ...]
    tied: Literal["block", "kind"] | None = None
    """Layers that share their number of groups: those of a block, or of a kind (fc1, softmax)."""
    budget: Budget
    max_size: Size | None = None
    """The most that the model may take, its weights packed: 3.2 MB, or {weight_bits: 4}."""
    calibration_images: Count = 32
    search_images: Count = 64
    final_images: CountOrNone = 768
    """At most so many, of those that are left, for the final round; 0: there is none."""
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
        if self.mixed:
            self._budget_names_bits()
            return self
        fewest = self.num_groups[0]
        uniform = self.budget.uniform if isinstance(self.budget, UniformBudget) else fewest
        if isinstance(uniform, str):
            raise ValueError(
                f"`budget.uniform` must be a number of groups where bits are not searched, "
                f"but got budget.uniform={uniform!r}."
            )
        if uniform < fewest:
            rule = f"`budget.uniform` must be at least the smallest of `num_groups`, {fewest}"
            raise ValueError(f"{rule}, but got budget.uniform={uniform}.")
        return self

    @model_validator(mode="after")
    def _size_can_be_met(self) -> Self:
        fewest = min(_listed(self.weight_bits))
        if isinstance(self.max_size, WeightBitsSize) and self.max_size.weight_bits < fewest:
            raise ValueError(
                f"`max_size.weight_bits` must be at least the smallest of `weight_bits`, {fewest}, "
                f"but got max_size.weight_bits={self.max_size.weight_bits}."
            )
        return self

    def _budget_names_bits(self) -> None:
        if isinstance(self.budget, BopsBudget):
            return
        if isinstance(self.budget, UniformBudget) and isinstance(self.budget.uniform, str):
            return
        raise ValueError(
            "`budget` must be bops or uniform with bits, such as w4a4g8, where bits are searched, "
            f"but got {self.budget}."
        )

    @property
    def mixed(self) -> bool:
        """Whether bits are searched, and not groups alone."""
        return isinstance(self.weight_bits, tuple) or isinstance(self.activation_bits, tuple)

    @property
    def base_bits(self) -> tuple[int, int]:
        """Bits of weights and activations that overhead is measured against.

        Those of all layers, or of the budget, or else the fewest.
        """
        if self.mixed and isinstance(self.budget, UniformBudget):
            match = SETTING.fullmatch(str(self.budget.uniform))
            assert match is not None  # checked above
            return int(match[1]), int(match[2])
        return min(_listed(self.weight_bits)), min(_listed(self.activation_bits))


def _listed(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


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


def _written(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refuse(path, f"the file must be readable, but got {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _refuse(path, f"the file must be YAML, but {complaint(error)}.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise _refuse(path, f"the file must map keys to values, but got {content!r}.")
    if "name" in content:
        rule = "`name` must be left out, it is the file's name"
        raise _refuse(path, f"{rule}, but got name={content['name']!r}.")
    return content


def _refuse(path: Path, *problems: str) -> SearchSpaceError:
    return SearchSpaceError("\n  ".join((f"{path.name} is not a search space:", *problems)))
