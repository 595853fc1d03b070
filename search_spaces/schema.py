"""The schema of a search space.

A person writes YAML; `search_spaces.reading` makes of it one frozen `SearchSpace`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from igq.scheme import (
    TUNING_STEPS,
    Assignment,
    InputMethod,
    Rotation,
    Scheme,
    SoftmaxMethod,
    WeightMethod,
)
from igq.settings import Options, Setting
from search_spaces.budgets import (
    BopsBudget,
    BopsLimit,
    Budget,
    Count,
    CountOrNone,
    Frozen,
    Groups,
    LatencyBudget,
    UniformBudget,
)
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


_BITS = {"type": "integer", "minimum": 2, "maximum": 8}
Bits = Annotated[
    int | tuple[int, ...],
    PlainValidator(_bits),
    PlainSerializer(lambda bits: bits),
    WithJsonSchema({"anyOf": [_BITS, {"type": "array", "items": _BITS}]}),
]


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


class SearchSpace(Frozen):
    """A model, its bits, the numbers of groups to choose from, and the budget.

    `weights` None: the pretrained weights of `model`. `images` None: the caller brings them.
    """

    name: StrictStr
    description: StrictStr | None = None
    """A line for `igq spaces`."""
    model: ModelSpec
    """A name of timm, or a mapping with `name` and `arguments` of `timm.create_model`."""
    weights: Path | None = None
    """A local file, relative to the space's; without it timm's pretrained weights are taken."""
    images: StrictStr | None = None
    """Where images come from if `--images` is not given."""
    weight_bits: Bits
    """Bits of weights; a list lets each layer choose."""
    activation_bits: Bits
    """Bits of activations; a list lets each layer choose."""
    weight_method: WeightMethod = WeightMethod.CORRECTED
    """Corrected weights, or the nearest codes as in the paper."""
    tuning_steps: CountOrNone = TUNING_STEPS
    """Steps that tune corrected weights where bits are not searched; 0: they are only rounded."""
    softmax_method: SoftmaxMethod = SoftmaxMethod.KEYS
    """Groups of softmax maps; `rows` as in the paper."""
    input_method: InputMethod = InputMethod.TOKENS
    """Groups of the inputs of linear layers; `channels` as in the paper."""
    rotation: Rotation = Rotation.WIDE
    """Rotated linear layers; `none` as in the paper."""
    assignment: Assignment = Assignment.LEAST_ERROR
    """How channels pick their groups, where `input_method` has them pick."""
    num_groups: tuple[Groups, ...]
    """The numbers of groups that each layer chooses from."""
    tied: Literal["block", "kind"] | None = None
    """Layers that share their number of groups: those of a block, or of a kind (fc1, softmax)."""
    budget: Budget
    """The most BOPs: uniform: 8, bops: 2.1e10 or overhead: 3 %; or latency: 14 ms and its table."""
    max_bops: BopsLimit | None = None
    """The most BOPs beside a latency, written as a budget of BOPs is."""
    max_size: Size | None = None
    """The most that the model may take, its weights packed: 3.2 MB, or {weight_bits: 4}."""
    calibration_images: Count = 32
    """Images that ranges are observed on."""
    search_images: Count = 64
    """Images that trials are measured on."""
    final_images: CountOrNone = 768
    """At most so many, of those that are left, for the final round; 0: there is none."""
    validation_images: Count = 1000
    """At most so many images for the comparison at the end."""
    sensitivity_images: Count = 32
    """Search images that sensitivities are measured on."""
    trials: Count = 100
    """Trials of a search, baselines included."""

    @field_validator("num_groups")
    @classmethod
    def _is_a_choice(cls, num_groups: tuple[int, ...]) -> tuple[int, ...]:
        if len(num_groups) < 2 or sorted(set(num_groups)) != list(num_groups):
            raise ValueError("must be at least two numbers, strictly increasing")
        return num_groups

    @model_validator(mode="after")
    def _budget_can_be_met(self) -> Self:
        if self.options.searches_bits:
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
    def _latency_has_its_table(self) -> Self:
        of_latency = isinstance(self.budget, LatencyBudget)
        if isinstance(self.budget, LatencyBudget) and self.budget.table is None:
            raise ValueError(
                "`budget.table` must be the file that igq profile wrote, but got nothing."
            )
        bits = of_latency and re.search(r"w\d", str(self.budget))
        if bits and not self.options.searches_bits:
            raise ValueError(
                "`budget.latency` must be a time or a number of groups where bits are not "
                f"searched, but got {self.budget}."
            )
        if self.max_bops is not None and not of_latency:
            raise ValueError(
                "`max_bops` must stand beside a budget of latency, as another budget is one of "
                f"BOPs itself, but got budget={self.budget}."
            )
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
        if isinstance(self.budget, BopsBudget | LatencyBudget):
            return
        if isinstance(self.budget, UniformBudget) and isinstance(self.budget.uniform, str):
            return
        raise ValueError(
            "`budget` must be bops or uniform with bits, such as w4a4g8, where bits are searched, "
            f"but got {self.budget}."
        )

    @property
    def scheme(self) -> Scheme:
        """How the model is quantized."""
        return Scheme(
            self.input_method,
            self.softmax_method,
            self.assignment,
            self.rotation,
            self.weight_method,
        )

    @property
    def options(self) -> Options:
        """The bits and numbers of groups that settings are made of."""
        return Options(_listed(self.weight_bits), _listed(self.activation_bits), self.num_groups)

    @property
    def tunes(self) -> bool:
        """Whether weights are tuned: not where bits are searched, as one model serves all bits."""
        return self.weight_method is WeightMethod.CORRECTED and not self.options.searches_bits

    @property
    def tuned_steps(self) -> int:
        """Steps that tune the weights."""
        return self.tuning_steps if self.tunes else 0

    @property
    def base_bits(self) -> tuple[int, int]:
        """Bits of weights and activations that overhead is measured against.

        They are those of all layers, or of the budget, or else the fewest.
        """
        if self.options.searches_bits and isinstance(self.budget, UniformBudget):
            setting = Setting.parse(self.budget.uniform)
            assert setting.weight_bits is not None  # checked above
            assert setting.activation_bits is not None
            return setting.weight_bits, setting.activation_bits
        return self.options.weight_bits[0], self.options.activation_bits[0]


def _listed(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
