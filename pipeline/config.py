"""Everything that defines a study, and the folder that holds one."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from errno import EACCES, ENOTDIR
from pathlib import Path
from typing import Any

from torch import nn

from igq.vit import EAGER, Execution
from pipeline.errors import StudyError
from pipeline.files import read_json, write_json
from search_spaces import SearchSpace


class Sampler(StrEnum):
    """Who proposes after the baselines."""

    SURROGATE = "surrogate"
    """What would be best for all that the trials show together of each layer's worth."""
    LOCAL = "local"
    """The best allocation so far with a few layers changed."""
    TPE = "tpe"
    """Optuna's TPE, its answers brought within the budget."""
    RANDOM = "random"
    """Random allocations within the budget."""
    SWAPS = "swaps"
    """Swaps of groups between two layers of the best so far, which the paper's ILP is at first."""
    PLAIN = "plain"
    """Optuna's TPE as it is: proposals over the budget are recorded as pruned, not sent."""


class Engine(StrEnum):
    """How quantized models are computed."""

    AUTO = "auto"
    """Compiled where there is enough to compute, eager otherwise."""
    COMPILED = "compiled"
    """Compiled blocks, and products in bfloat16 where the hardware has it."""
    EAGER = "eager"
    """As written down, in float32."""


@dataclass(frozen=True)
class Request:
    """What a user asks for: a space, where weights and images are, and how long to search."""

    space: SearchSpace
    out: Path
    weights: Path | None = None
    images: str | None = None
    calibration: str | None = None
    validation: str | None = None
    trials: int | None = None
    seed: int = 0
    sampler: Sampler = Sampler.SURROGATE
    rivals: bool = True
    """Whether random search and a repaired ILP get as much compute as the search, to compare."""
    front: bool = False
    """Whether KL is wanted for a range of budgets around the space's, not for that one alone."""
    resume: bool = False
    engine: Engine = Engine.AUTO

    @property
    def num_trials(self) -> int:
        """How many trials the study is to have, the baselines among them."""
        return self.trials or self.space.trials

    def over_seeds(self, seeds: int) -> tuple["Request", ...]:
        """The same for so many seeds, each in a folder of its own; one seed alone is as it is."""
        if seeds == 1:
            return (self,)
        numbers = range(self.seed, self.seed + seeds)
        folders = {seed: self.out / f"seed-{seed}" for seed in numbers}
        return tuple(
            replace(self, seed=seed, out=out, resume=self.resume and Folder(out).study.exists())
            for seed, out in folders.items()
        )


@dataclass(frozen=True)
class Folder:
    """Where the parts of a study lie."""

    path: Path

    @property
    def study(self) -> Path:
        """What the study is; written once, compared when it is resumed."""
        return self.path / "study.json"

    @property
    def journal(self) -> Path:
        """Optuna's journal: every trial."""
        return self.path / "journal.log"

    @property
    def lock(self) -> Path:
        """Held by the one driver that has the study open."""
        return self.path / ".lock"

    @property
    def cache(self) -> Path:
        """What was computed once: candidates and harm tables."""
        return self.path / "cache"

    @property
    def result(self) -> Path:
        """The comparison at the end, and the best allocation."""
        return self.path / "result.json"

    @property
    def final(self) -> Path:
        """What the finalists reached on the final images."""
        return self.path / "final.json"

    @property
    def validation(self) -> Path:
        """What every contender reached on every validation image."""
        return self.path / "validation.json"

    @property
    def figures(self) -> Path:
        """The same as pictures."""
        return self.path / "figures"


_NOT_DECISIVE = {"weights", "images", "trials", "description"}
"""What of a space does not decide a study's numbers: hashes stand for weights and images."""
_CAME_LATER = ("tied", "max_size")
"""What older studies do not say of their space: left out where it says nothing."""
_BEFORE = {
    "softmax_method": "rows",
    "assignment": "nearest",
    "input_method": "channels",
    "rotation": "none",
}
"""What older studies did where they do not say."""
_WHEREABOUTS = ("weights", "sources")


@dataclass(frozen=True)
class Definition:
    """What makes two studies the same: compared on `--resume`, logged, written to study.json."""

    space: SearchSpace
    weights: str
    """Where the weights came from, as a path or a hub's name."""
    model: str
    """A hash of the model's tensors."""
    images: Mapping[str, str]
    """Purpose -> fingerprint of its images."""
    sources: Mapping[str, str]
    """Purpose -> where its images came from."""
    seed: int
    sampler: Sampler
    execution: Execution = EAGER
    front: bool = False

    def json(self) -> dict[str, Any]:
        """The definition as plain data."""
        space = self.space.model_dump(mode="json", exclude=_NOT_DECISIVE)
        for later in _CAME_LATER:
            if space[later] is None:
                del space[later]
        return {
            "space": space,
            "weights": self.weights,
            "model": self.model,
            "images": dict(self.images),
            "sources": dict(self.sources),
            "seed": self.seed,
            "sampler": self.sampler.value,
            "execution": asdict(self.execution),
            **({"front": True} if self.front else {}),
        }

    @property
    def key(self) -> str:
        """A hash of what decides the study's numbers: not where files lie."""
        return digest({k: v for k, v in self.json().items() if k not in _WHEREABOUTS})


def digest(content: Any) -> str:
    """A short hash of plain data, the same in every process."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(model: nn.Module) -> str:
    """A hash of the model's tensors and their names."""
    content = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def write_definition(folder: Folder, definition: Definition) -> None:
    """Write down what the study is.

    Raises:
        StudyError: the folder cannot be written.
    """
    write_json(folder.study, {"key": definition.key, **definition.json()})


def space_of(written: Mapping[str, Any]) -> SearchSpace:
    """The space of a study, as `Definition.json` wrote it, now or before it knew of all it says."""
    return SearchSpace.model_validate({**_BEFORE, **written["space"]})


def check_folder(folder: Folder, resume: bool) -> None:
    """Refuse a folder that cannot be started in, before any work; none is made.

    Raises:
        StudyError: it holds a study and `resume` was not asked for, or holds none and it was,
            or cannot be written.
    """
    if resume:
        read_json(folder.study)
    elif folder.study.exists():
        raise StudyError(
            f"`out` must not hold a study yet, but {folder.path} does: continue it with --resume, "
            "or choose another --out."
        )
    there = next(p for p in (folder.path, *folder.path.parents) if os.path.lexists(p))
    if not there.is_dir():
        raise unwritable(folder, ENOTDIR)
    if not os.access(there, os.W_OK | os.X_OK):
        raise unwritable(folder, EACCES)


def unwritable(folder: Folder, reason: int) -> StudyError:
    """What to raise where the system says, by an errno, that a folder cannot be written."""
    return StudyError(
        f"`out` must be a folder that can be written, but {folder.path} is not: "
        f"{os.strerror(reason)}."
    )


def check_same(folder: Folder, definition: Definition) -> None:
    """Refuse to go on with the study of something else.

    Raises:
        StudyError: the study in the folder was started with other weights, images or settings.
    """
    written, now = _flat(read_json(folder.study)), _flat(definition.json())
    if written.get("key") == definition.key:
        return
    decisive = [k for k in {**now, **written} if k.partition(".")[0] not in _WHEREABOUTS]
    decisive.sort(key=lambda k: k.startswith("images."))  # they follow from all else: the last
    what = next((k for k in decisive if k != "key" and written.get(k) != now.get(k)), "key")
    raise StudyError(
        f"`resume` needs the study that was started in {folder.path}, but its {what} differs: "
        f"{_said(written, what)} then, {_said(now, what)} now. Go on as it was started, or choose "
        "another --out for a new study."
    )


def _said(flat: Mapping[str, Any], name: str) -> str:
    return repr(flat[name]) if name in flat else "not set"


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one: {"space": {"seed": 0}} as {"space.seed": 0}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat
