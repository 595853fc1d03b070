"""The definition of a study: what makes two studies the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from igq.costs import Profile, profile_json, profile_of
from igq.errors import ProfileError
from igq.quantized import EAGER, Execution
from pipeline.errors import StudyError
from pipeline.study.folder import Folder
from pipeline.study.request import Request, Sampler
from pipeline.study.seals import read_definition, write_definition
from search_spaces import SearchSpace

_NOT_DECISIVE = {"weights", "images", "trials", "description"}
"""Fields of a space that do not affect results: hashes stand for weights and images."""
_BEFORE = {
    "softmax_method": "rows",
    "assignment": "nearest",
    "input_method": "channels",
    "rotation": "none",
    "tuning_steps": 60,
}
"""The methods of older studies that do not name them."""
_SEALS = ("schema", "id", "digest")
"""Parts of study.json that say what was written, not what was asked for."""
_WHEREABOUTS = ("weights", "sources", "classes", "checkpoint_key", "begun")
"""Where things lie, and labels, which no choice is made on: a study may be resumed with others."""


@dataclass(frozen=True)
class Definition:
    """Compared on `--resume`, logged, and written to study.json."""

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
    checkpoint_key: str | None = None
    """Which of a checkpoint's sets of weights was read; None for the first."""
    classes: Mapping[str, int] | str | None = None
    """Name of a class folder -> class, or the order of class folders; None where none was given."""
    profile: Profile | None = None
    """The latency table, where the budget is a latency: the study's own, wherever its file goes."""
    begun: Mapping[str, str] = field(default_factory=dict)
    """The processor and torch that it was begun with: sums depend on both."""

    @classmethod
    def read(cls, folder: Folder) -> "Definition":
        """Return the definition of the study in a folder, also of an older one.

        Raises:
            StudyError: there is no study, or its definition is damaged.
        """
        written = read_definition(folder.path)
        try:
            return cls(
                space_of(written),
                written["weights"],
                written["model"],
                written["images"],
                written["sources"],
                written["seed"],
                Sampler(written["sampler"]),
                Execution(**written.get("execution", {})),
                written.get("front", False),
                written.get("checkpoint_key"),
                written.get("classes"),
                profile_of(written["profile"]) if "profile" in written else None,
                written.get("begun", {}),
            )
        except (AttributeError, KeyError, TypeError, ValueError, ProfileError) as error:
            raise StudyError(f"{folder.study} must define a study, but: {error!r}") from error

    def write(self, folder: Folder, nonce: str = "") -> None:
        """Write the definition; `nonce` tells a new study from others with the same definition.

        Raises:
            StudyError: the folder cannot be written.
        """
        write_definition(folder.path, self.key, self.json(), nonce)

    def json(self) -> dict[str, Any]:
        """Return the definition as plain data."""
        # A field that is not set is left out: older studies do not know the fields of today.
        space = self.space.model_dump(mode="json", exclude=_NOT_DECISIVE, exclude_none=True)
        if not self.space.tunes or self.space.tuning_steps == _BEFORE["tuning_steps"]:
            del space["tuning_steps"]
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
            **({"checkpoint_key": self.checkpoint_key} if self.checkpoint_key else {}),
            **({} if self.classes is None else {"classes": self._classes}),
            **({} if self.profile is None else {"profile": profile_json(self.profile)}),
            **({"begun": dict(self.begun)} if self.begun else {}),
        }

    @property
    def _classes(self) -> dict[str, int] | str | None:
        return dict(self.classes) if isinstance(self.classes, Mapping) else self.classes

    @property
    def key(self) -> str:
        """A hash of everything that decides the study's numbers: not where files lie."""
        content = {k: v for k, v in self.json().items() if k not in _WHEREABOUTS}
        content["space"]["budget"].pop("table", None)  # where it lies
        return digest(content)


def as_begun(request: Request) -> Request:
    """Return a request that tunes weights as the study that it resumes did, unless its space says.

    Raises:
        StudyError: there is no study to resume, or its definition is damaged.
    """
    space = request.space
    if not request.resume or "tuning_steps" in space.model_fields_set:
        return request
    steps = Definition.read(Folder(request.out)).space.tuning_steps
    return replace(request, space=space.model_copy(update={"tuning_steps": steps}))


def digest(content: Any) -> str:
    """Return a short hash of plain data, the same in every process."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the model's tensors and their names."""
    content = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def space_of(written: Mapping[str, Any]) -> SearchSpace:
    """Return the space of a study or artifact, as `Definition.json` wrote it, now or earlier."""
    return SearchSpace.model_validate({**_BEFORE, **written["space"]})


def check_same(folder: Folder, definition: Definition) -> None:
    """Refuse to go on with the study of something else.

    Raises:
        StudyError: the study in the folder was started with other weights, images or settings.
    """
    written, now = _flat(read_definition(folder.path)), _flat(definition.json())
    if written.get("key") == definition.key:
        return
    decisive = [k for k in {**now, **written} if k.partition(".")[0] not in _WHEREABOUTS]
    decisive = [k for k in decisive if k not in ("space.budget.table", *_SEALS)]
    decisive.sort(key=lambda k: k.startswith("images."))  # they follow from all else: the last
    name = next((k for k in decisive if k != "key" and written.get(k) != now.get(k)), "key")
    raise StudyError(
        f"`resume` needs the study that was started in {folder.path}, but its {name} differs: "
        f"{_said(written, name)} then, {_said(now, name)} now. Go on as it was started, or choose "
        "another --out for a new study."
    )


def _said(flat: Mapping[str, Any], name: str) -> str:
    return repr(flat[name]) if name in flat else "not set"


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one: {"space": {"seed": 0}} as {"space.seed": 0}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat
