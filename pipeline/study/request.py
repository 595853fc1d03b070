"""A request: everything a user asks for. Nothing here needs torch."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypedDict, TypeVar

from igq.errors import InvalidArgumentError
from pipeline.study.folder import Folder
from search_spaces import SearchSpace

E = TypeVar("E", bound=StrEnum)


class Sampler(StrEnum):
    """Who proposes after the baselines.

    >>> [sampler.value for sampler in Sampler]
    ['surrogate', 'local', 'tpe', 'random', 'swaps', 'plain']
    """

    SURROGATE = "surrogate"
    """The allocation that is best for each layer's effect as learned from all trials together."""
    LOCAL = "local"
    """The best allocation so far with a few layers changed."""
    TPE = "tpe"
    """Optuna's TPE, its answers brought within the budget."""
    RANDOM = "random"
    """Random allocations within the budget."""
    SWAPS = "swaps"
    """Swaps of groups between two layers of the best so far, which is the paper's ILP at first."""
    PLAIN = "plain"
    """Optuna's TPE as it is: proposals over the budget are recorded as pruned, not sent."""


class Engine(StrEnum):
    """The ways to compute quantized models.

    >>> Engine("auto").value
    'auto'
    """

    AUTO = "auto"
    """Compiled where there is enough to compute, eager otherwise."""
    COMPILED = "compiled"
    """Compiled blocks, and products in bfloat16 where the hardware has it."""
    EAGER = "eager"
    """As written down, in float32."""


@dataclass(frozen=True)
class Request:
    """A space, where weights and images are, and how long to search.

    >>> import search_spaces
    >>> request = Request(search_spaces.load("demo"), Path("studies/demo"), seed=3)
    >>> [one.out.name for one in request.over_seeds(2)]
    ['seed-3', 'seed-4']
    """

    space: SearchSpace
    out: Path
    weights: Path | None = None
    images: str | None = None
    calibration: str | None = None
    validation: str | None = None
    checkpoint_key: str | None = None
    """Which of a checkpoint's sets of weights is read; by default the moving average."""
    num_classes: int | None = None
    """Classes of the weights; by default the space's, or as many as the weights have."""
    classes: str | None = None
    """The order of class folders, or a file of classes; see `pipeline.data.classes`."""
    trials: int | None = None
    seed: int = 0
    sampler: Sampler = Sampler.SURROGATE
    rivals: bool = True
    """Whether random search and a repaired ILP get as much compute as the search, to compare."""
    front: bool = False
    """Whether KL is wanted for a range of budgets around the space's, not for that one alone."""
    resume: bool = False
    engine: Engine = Engine.AUTO
    figures: bool = True
    """Whether figures are drawn at the end."""

    def __post_init__(self) -> None:
        """Take the names of members for `sampler` and `engine` too, as a notebook may give them."""
        object.__setattr__(self, "sampler", _member(Sampler, "sampler", self.sampler))
        object.__setattr__(self, "engine", _member(Engine, "engine", self.engine))

    @property
    def num_trials(self) -> int:
        """The trials that the study is to have, with the baselines."""
        return self.trials or self.space.trials

    def over_seeds(self, seeds: int) -> tuple["Request", ...]:
        """Return the same request for several seeds, each in a folder of its own.

        One seed alone keeps the folder as it is.
        """
        if seeds == 1:
            return (self,)
        numbers = range(self.seed, self.seed + seeds)
        folders = {seed: self.out / f"seed-{seed}" for seed in numbers}
        return tuple(
            replace(self, seed=seed, out=out, resume=self.resume and Folder(out).study.exists())
            for seed, out in folders.items()
        )


def _member(kind: type[E], name: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(kind)
        raise InvalidArgumentError(
            f"`{name}` must be one of {known}, but got {value!r}."
        ) from error


class Wishes(TypedDict, total=False):
    """The fields of a request that have a default; `pipeline.search` takes them by name."""

    images: str | None
    calibration: str | None
    validation: str | None
    classes: str | None
    checkpoint_key: str | None
    num_classes: int | None
    trials: int | None
    seed: int
    sampler: Sampler
    rivals: bool
    front: bool
    resume: bool
    engine: Engine
    figures: bool
