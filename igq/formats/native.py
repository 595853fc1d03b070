"""A quantized model on disk: a folder with `model.safetensors` and `manifest.json`.

Weights are stored as codes with the scale and zero point of each output channel, activation
quantizers as the bounds of each group, all else as it is in the model. The manifest says how to
make the model again and carries whatever the caller adds. Nothing in it is code.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from igq.allocation import Allocation
from igq.arithmetic.affine import QuantizedTensor, check_bits
from igq.errors import ArtifactError, IgqError
from igq.formats.compat import READABLE, grouping_noted
from igq.formats.manifest import FORMAT, allocation_of, manifest_of
from igq.grouping import FittedGrouping, GroupQuantizer, Quantizer, SliceQuantizer
from igq.layer import check_num_groups
from igq.quantized import assemble, quantized_weights, quantizers, with_rotated
from igq.vit import Architecture, remake


@dataclass(frozen=True)
class Artifact:
    """A model read back from disk, and what was noted beside it.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> images = torch.rand(4, 3, 32, 32)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = igq.save(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> artifact = igq.load(path)
    >>> str(artifact.allocation["blocks.0.mlp.fc1"]), artifact.notes
    ('4', {'seed': 3})
    """

    model: nn.Module
    allocation: Allocation
    notes: Mapping[str, Any]


def save(model: nn.Module, path: str | Path, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a quantized model to a new folder, whole or not at all; `notes` must be JSON.

    Raises:
        ArtifactError: `model` is not quantized, `path` exists already or cannot be written.
        UnsupportedModelError: the model could not be made again from its timm name.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> images = torch.rand(4, 3, 32, 32)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = igq.save(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> sorted(file.name for file in path.iterdir())
    ['manifest.json', 'model.safetensors']
    """
    path = Path(path)
    if not quantized_weights(model):
        raise ArtifactError("only a quantized model can be saved; make one with igq.quantize.")
    if path.exists():
        raise ArtifactError(f"`path` must not exist yet, but {path} does.")
    manifest, tensors = manifest_of(model, notes or {}), _tensors(model)
    try:
        text = json.dumps(manifest, indent=1) + "\n"
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"`notes` must be JSON, but are not: {error}") from error
    _check_rebuilt(model, manifest, tensors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ArtifactError(f"{path.parent} must be writable, but is not: {error}") from error
    try:
        save_file(tensors, draft / "model.safetensors")
        (draft / "manifest.json").write_text(text)
        draft.chmod(0o755)  # a temporary folder is its maker's alone
        (draft / "model.safetensors").chmod(0o644)
        os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} could not be written: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def load(path: str | Path) -> Artifact:
    """Read a quantized model back; its predictions are the same, bit for bit.

    Raises:
        ArtifactError: the folder is not an artifact, is damaged, or has a schema of another time.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> images = torch.rand(4, 3, 32, 32)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = igq.save(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> torch.equal(igq.load(path).model(images), quantized(images))
    True
    """
    try:
        return _read(Path(path))
    except ArtifactError:
        raise
    except _DAMAGED as error:
        raise ArtifactError(f"{path} could not be read as an artifact: {error!r}") from error


_DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    StopIteration,
    SafetensorError,
    IgqError,
)
"""The errors of reading a folder that `save` did not write."""


def _read(path: Path) -> Artifact:
    manifest = json.loads((path / "manifest.json").read_text())
    if manifest.get("format") != FORMAT:
        raise ArtifactError(f"{path} must hold an {FORMAT}, but is {manifest.get('format')!r}.")
    if manifest["schema"] not in READABLE:
        known = " or ".join(map(str, READABLE))
        raise ArtifactError(
            f"the schema of {path} must be {known}, but is {manifest['schema']}; "
            "use the version of igq-vit that wrote it."
        )
    model = _rebuild(manifest, load_file(path / "model.safetensors"))
    return Artifact(model, allocation_of(model), manifest["notes"])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    weights = quantized_weights(model)
    tensors: dict[str, Tensor] = {}
    fitted = quantizers(model).items()
    for name, q in ((n, q) for n, q in fitted if isinstance(q, GroupQuantizer)):
        tensors |= {f"activations.{name}.lower": q.lower, f"activations.{name}.upper": q.upper}
    for name, w in weights.items():
        tensors |= {
            f"weights.{name}.codes": w.codes,
            f"weights.{name}.scale": w.scale,
            f"weights.{name}.zero_point": w.zero_point,
        }
    tensors |= {f"parameters.{name}": p.detach() for name, p in model.named_parameters()}
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def _rebuild(manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    stored = _inside("parameters", tensors)
    noted = manifest["model"]
    model = remake(Architecture(noted["name"], noted["arguments"])).to(next(iter(stored.values())))
    model = with_rotated(model, manifest.get("rotated", ()))
    weights = {
        name: _weight(_inside(f"weights.{name}", tensors), model.get_parameter(f"{name}.weight"), w)
        for name, w in manifest["weights"].items()
    }
    fitted = {
        name: _quantizer(_inside(f"activations.{name}", tensors), a)
        for name, a in manifest["activations"].items()
    }
    rebuilt = assemble(model, fitted, weights)
    parameters = dict(rebuilt.named_parameters())
    if parameters.keys() != stored.keys():
        odd = sorted(parameters.keys() ^ stored.keys())[0]
        raise ValueError(f"its tensors do not fit the model {noted['name']}: {odd}")
    for name, parameter in parameters.items():
        parameter.data = _checked(name, stored[name], parameter.shape)
    return rebuilt.requires_grad_(False)


def _inside(folder: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start so, by the rest of their names."""
    prefix = f"{folder}."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _weight(
    stored: Mapping[str, Tensor], replaced: Tensor, noted: Mapping[str, Any]
) -> QuantizedTensor:
    return QuantizedTensor(
        _checked("codes", stored["codes"], replaced.shape),
        _checked("scale", stored["scale"], replaced.shape[:1]),
        _checked("zero_point", stored["zero_point"], replaced.shape[:1]),
        check_bits(noted["bits"]),
    )


def _quantizer(stored: Mapping[str, Tensor], noted: Mapping[str, Any]) -> Quantizer:
    bits, grouping = check_bits(noted["bits"]), grouping_noted(noted)
    if noted["bounds"] == "own":
        check_num_groups([num_groups := index(noted.get("num_groups", 1))])
        return SliceQuantizer(bits, grouping, num_groups)
    if noted["bounds"] != "fitted" or not isinstance(grouping, FittedGrouping):
        raise ValueError(f"bounds of {grouping.tag} must not be {noted['bounds']!r}")
    groups = stored["lower"].shape[:1]
    return GroupQuantizer(
        _checked("lower", stored["lower"], groups),
        _checked("upper", stored["upper"], groups),
        bits,
        grouping,
    )


def _checked(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, but has {list(tensor.shape)}")
    if not tensor.isfinite().all():
        raise ValueError(f"{name} must be finite, but has NaN or infinity")
    return tensor


def _check_rebuilt(
    model: nn.Module, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse to write what could not be read: make the model again and compare."""
    try:
        rebuilt = _rebuild(manifest, tensors)
    except (IgqError, ValueError) as error:
        raise ArtifactError(f"the model could not be made again by timm: {error}") from error
    if repr(rebuilt) != repr(model) or not _same_predictions(rebuilt, model):
        raise ArtifactError(
            f"the model must be what timm makes from {manifest['model']['name']} and "
            f"{manifest['model']['arguments']}, but differs from it."
        )


@torch.inference_mode()
def _same_predictions(rebuilt: nn.Module, model: nn.Module) -> bool:
    """Return whether both predict the same for an image of noise."""
    embed: Any = model.patch_embed
    shape = (1, embed.proj.in_channels, *embed.img_size)
    like = next(model.parameters())
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(like)
    return torch.equal(rebuilt.to(like.device)(image), model(image))
