"""Apply an allocation.json: quantize the same weights with the same images, elsewhere."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from igq import Allocation, ArtifactError, Layer, Setting, layers
from igq.formats import read_allocation
from igq.formats.integrity import file_entry
from igq.quantized import assemble, select_weights
from pipeline.commands.artifacts.export import write
from pipeline.commands.artifacts.noted import space_noted
from pipeline.data import Images, Preprocessing, class_names, draw, open_source
from pipeline.errors import DataError
from pipeline.paths import check_new
from pipeline.preparation.calibration import Calibration
from pipeline.preparation.models import load_model
from pipeline.preparation.notes import costs_of
from pipeline.preparation.purposes import CALIBRATION
from pipeline.preparation.study import check_weights
from pipeline.study.folder import Folder
from pipeline.study.progress import Display, SilentDisplay
from search_spaces import SearchSpace

_PARTS = ("weight_bits", "activation_bits", "num_groups")


@dataclass(frozen=True)
class Applied:
    """A model on disk that was made from an allocation, and whether it is the original's twin."""

    path: Path
    identical: bool
    """Whether its tensors are the original's, bit for bit; processors may round otherwise."""
    edited: tuple[str, ...]
    """Layers whose setting costs other than the file notes, or without a cost: it was edited."""


def apply(
    allocation: str | Path,
    weights: str | Path,
    images: str,
    out: str | Path,
    display: Display | None = None,
) -> Applied:
    """Make the artifact that an allocation.json describes, from weights and calibration images.

    The calibration images are drawn again and must be the same ones: with others, bounds and codes
    would be others too, and nothing that is known of the original would hold. Settings may be
    edited to others of the space. Scores are not taken over, as they are of the original.

    Raises:
        ArtifactError: the file is none, or has a setting that its space does not offer; `out`
            exists already or cannot be written.
        DataError: the images are not those that the original was calibrated on.
        StudyError: the weights are others.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> weights = pipeline.open("studies/demo").study.definition.weights
    >>> written = exported.path / "allocation.json"
    >>> pipeline.apply(written, weights, "digits", "artifacts/again").identical
    True
    """
    check_new(out := Path(out))
    settings, content = read_allocation(allocation)
    space, shown = space_noted(allocation, content), display or SilentDisplay()
    model, key = load_model(space, Path(weights))
    check_weights(key, content["model"].get("weights"))
    listed = layers(model)
    chosen = chosen_of(allocation, settings, space, listed)
    drawn = _calibration(allocation, content, space, images, model, shown)
    quantized = _quantized(model, key, space, chosen, drawn, shown)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    costs = costs_of(space, listed, parameters, chosen)
    write(quantized, out, {**_notes(content, space, model, drawn), **costs}, ("native",))
    entry = file_entry(out / "model.safetensors")
    edited = _edited(content["layers"], costs["costs"])
    return Applied(out, entry["sha256"] == content["model"].get("tensors"), edited)


def _edited(noted: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the layers that cost other than noted; an export notes the costs of every layer."""
    known = {entry["name"]: entry.get("costs") for entry in noted}
    return tuple(name for name, cost in costs.items() if known[name] != cost)


def chosen_of(
    path: str | Path, settings: Mapping[str, Setting], space: SearchSpace, listed: Sequence[Layer]
) -> Allocation:
    """Return an allocation in the form that a space's trials have.

    Raises:
        ArtifactError: a layer is missing or unknown, or its setting is not one of the space's.
    """
    if odd := sorted({layer.name for layer in listed} ^ settings.keys()):
        raise ArtifactError(f"{path} must name each layer of the model, but differs in {odd[0]}.")
    offered = {la.name: _offered(path, la, settings[la.name], space) for la in listed}
    chosen = [la.name for la in listed if space.options.searches_bits or la.grouped]
    return Allocation.of({name: offered[name] for name in chosen})


def _offered(path: str | Path, layer: Layer, noted: Setting, space: SearchSpace) -> Setting:
    """Return the parts of a setting that a space chooses; the others must be its base bits."""
    weights, activations = space.base_bits
    base = Setting(weights if layer.weighted else None, layer.bits or activations, None)
    for setting in space.options.settings([layer]):
        whole = {p: v for p in _PARTS if (v := getattr(setting, p) or getattr(base, p))}
        if whole == {p: v for p in _PARTS if (v := getattr(noted, p))}:
            return setting
    raise ArtifactError(
        f"{path} must give {layer.name} a setting that its space offers, but gives it {noted}."
    )


def _calibration(
    path: str | Path,
    content: Mapping[str, Any],
    space: SearchSpace,
    images: str,
    model: nn.Module,
    shown: Display,
) -> Images:
    """Draw the calibration images again, and refuse others."""
    noted = content.get("calibration")
    if not isinstance(noted, dict) or type(noted.get("seed")) is not int or noted["seed"] < 0:
        raise ArtifactError(f"{path} must note how calibration images were drawn, but does not.")
    source, count = open_source(images, Preprocessing.of(model)), space.calibration_images
    progress = shown.step("reading images")
    drawn = draw({CALIBRATION: (source, count, count)}, noted["seed"], progress)[CALIBRATION]
    if drawn.fingerprint != noted.get("fingerprint"):
        raise DataError(
            "`images` must hold the images that the original was calibrated on, whose fingerprint "
            f"is {noted.get('fingerprint')}, but {images} gives {drawn.fingerprint}: the same "
            "allocation on other images is another model. Search or export it there."
        )
    return drawn


def _quantized(
    model: nn.Module,
    key: str,
    space: SearchSpace,
    allocation: Allocation,
    drawn: Images,
    shown: Display,
) -> nn.Module:
    """Calibrate as a study does, in a folder that goes away, and put the model together."""
    with tempfile.TemporaryDirectory() as folder:
        calibration = Calibration(Folder(Path(folder)), space, key, drawn.fingerprint)
        calibration.compute(model, drawn, shown)
        changed, by_bits = calibration.weights(copy.deepcopy(model))
        candidates = calibration.candidates(model)
    weights = select_weights(by_bits, allocation, layers(model))
    return assemble(changed, candidates.select(allocation), weights)


def _notes(
    content: Mapping[str, Any], space: SearchSpace, model: nn.Module, drawn: Images
) -> dict[str, Any]:
    """Return what is known of the model without measuring it."""
    kept = {name: content.get(name) for name in ("space", "study", "trial")}
    return {
        **kept,
        "model": content["model"].get("weights"),
        "preprocessing": asdict(Preprocessing.of(model)),
        "classes": class_names([drawn.source]),
        "weight_method": space.weight_method.value,
        "calibration": {**content["calibration"], "source": drawn.source},
        "applied": {"tensors": content["model"].get("tensors")},
    }
