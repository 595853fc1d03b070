"""Write an artifact: beside its place, read again, compared, and then moved there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from igq.errors import ArtifactError
from igq.formats.drafts import new_folder
from igq.formats.integrity import file_entry, sealed
from igq.formats.native.card import card
from igq.formats.native.manifest import MANIFEST, TENSORS, manifest_of
from igq.formats.native.reading import load
from igq.formats.native.record import ALLOCATION, CARD, readable, views
from igq.formats.native.tensors import tensors_of
from igq.layer import Layer
from igq.quantized import quantized_weights
from igq.vit import layers


def save(model: nn.Module, path: str | Path, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a quantized model to a new folder, whole or not at all; `notes` must be JSON.

    Every layer must be quantized. `notes` may hold anything; `preprocessing` and `classes` must be
    the model's, and become files of their own; `allocation.json` shows `costs` by layer, `totals`,
    `fixed_costs`, `limits`, `scores`, `calibration`, `images`, `space`, `study`, `trial` and
    `mlflow_run`.

    Raises:
        ArtifactError: `model` is not quantized, or would be another one when it is read again;
            `path` exists already or cannot be written.
        UnsupportedModelError: the model could not be made again from its timm name.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> images = torch.rand(4, 3, 32, 32)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = igq.save(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> sorted(file.name for file in path.iterdir())
    ['README.md', 'allocation.json', 'manifest.json', 'model.safetensors']
    """
    path = Path(path)
    if not quantized_weights(model):
        raise ArtifactError("only a quantized model can be saved; make one with igq.quantize.")
    if path.exists():
        raise ArtifactError(f"`path` must not exist yet, but {path} does.")
    manifest, tensors = manifest_of(model, _as_json(notes or {})), tensors_of(model)
    with new_folder(path) as draft:
        _write(draft, manifest, tensors, layers(model))
        _check_same(draft, model, tensors)
    return path


def _as_json(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return notes as they will be read back."""
    try:
        content: dict[str, Any] = json.loads(json.dumps(dict(notes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"`notes` must be JSON, but are not: {error}") from error
    return content


def _write(
    draft: Path,
    manifest: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    listed: Sequence[Layer],
) -> None:
    """Write every file, the manifest with the digests of the others last."""
    try:
        save_file(dict(tensors), draft / TENSORS)
    except SafetensorError as error:
        raise ArtifactError(f"{draft} could not be written: {error}") from error
    (draft / TENSORS).chmod(0o644)
    shown = views({**manifest, "files": {TENSORS: file_entry(draft / TENSORS)}}, listed)
    for name, content in shown.items():
        (draft / name).write_text(readable(content) + "\n")
    (draft / CARD).write_text(card(shown[ALLOCATION], manifest["notes"]))
    files = {name: file_entry(draft / name) for name in (TENSORS, CARD, *shown)}
    (draft / MANIFEST).write_text(readable(sealed({**manifest, "files": files})) + "\n")


def _check_same(draft: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Refuse to keep what would be read as another model."""
    try:
        read = load(draft).model
    except ArtifactError as error:
        reason = str(error).partition("artifact: ")[2]
        raise ArtifactError(f"the model could not be read again: {reason}.") from error
    again = tensors_of(read)
    same = again.keys() == tensors.keys() and all(
        again[name].dtype == tensor.dtype and torch.equal(again[name], tensor)
        for name, tensor in tensors.items()
    )
    if not same or repr(read) != repr(model) or not _same_predictions(read, model):
        raise ArtifactError(
            "the model must be what timm makes from its name and arguments, but differs from it."
        )


@torch.inference_mode()
def _same_predictions(read: nn.Module, model: nn.Module) -> bool:
    """Return whether both predict the same for an image of noise."""
    embed: Any = model.patch_embed
    shape = (1, embed.proj.in_channels, *embed.img_size)
    like = next(model.parameters())
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(like)
    return torch.equal(read.to(like.device)(image), model(image))
