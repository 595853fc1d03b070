"""A quantized model in standard ONNX operators: built, checked, compared with torch, written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from igq.errors import ArtifactError
from igq.formats.drafts import new_folder, seal
from igq.formats.onnx.parts import PACKED_BITS
from igq.formats.onnx.plain import plain_graph
from igq.formats.onnx.verification import verify
from igq.quantized import quantized_weights, quantizers

FILE, PREPROCESSING, CLASSES = "model.onnx", "preprocessing.json", "classes.json"
MOST_BYTES = 2**31 - 2**24
"""The most bytes of weights: a file of 2 GB, less the graph."""


def write(model: nn.Module, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write a quantized model in standard operators; see `igq.formats.onnx.write_onnx`."""
    check(model, path)
    exported = plain_graph(model).model(metadata_of(model, notes))
    onnx.checker.check_model(exported, full_check=True)
    verify(exported, model)
    return write_folder(exported, model, path, notes, "onnx")


def write_folder(
    exported: onnx.ModelProto, model: nn.Module, path: Path, notes: Mapping[str, Any], kind: str
) -> Path:
    """Write an ONNX model, its preprocessing, class names and their digests to a new folder.

    Raises:
        ArtifactError: `path` exists already or cannot be written.
    """
    preprocessing = _json(notes.get("preprocessing") or _preprocessing(model))
    with new_folder(path) as draft:
        (draft / FILE).write_bytes(exported.SerializeToString(deterministic=True))
        (draft / PREPROCESSING).write_text(preprocessing)
        if notes.get("classes") is not None:
            (draft / CLASSES).write_text(_json(notes["classes"]))
        seal(draft, kind)
    return path


def check(model: nn.Module, path: Path) -> None:
    """Refuse a model or path before any work.

    Raises:
        ArtifactError: see `write`.
    """
    weights = quantized_weights(model)
    if not weights:
        raise ArtifactError("only a quantized model can be written; make one with igq.quantize.")
    if path.exists():
        raise ArtifactError(f"`path` must not exist yet, but {path} does.")
    dtype = next(model.parameters()).dtype
    if dtype != torch.float32:
        raise ArtifactError(
            f"a model must be in float32 to be written as ONNX, but is in {dtype}; "
            "quantize model.float()."
        )
    size = _bytes_of(model)
    if size > MOST_BYTES:
        raise ArtifactError(
            f"the weights must fit into an ONNX file of 2 GB, but take {size / 1e9:.1f} GB; "
            "choose fewer bits, or the format native."
        )
    for name, held in weights.items():
        whole = held.zero_point == held.zero_point.round()
        if not (whole & (held.zero_point >= 0) & (held.zero_point < 2**held.bits)).all():
            raise ArtifactError(
                f"zero points must be codes to be written as ONNX, but those of {name} are not."
            )
        if int(held.codes.max()) >= 2**held.bits:
            raise ArtifactError(f"codes must have {held.bits} bits, but those of {name} have more.")


def _bytes_of(model: nn.Module) -> int:
    """Return the bytes of a model's weights in the file."""
    held = quantized_weights(model).values()
    codes = sum(w.codes.numel() // (2 if w.bits <= PACKED_BITS else 1) for w in held)
    return codes + 4 * sum(p.numel() for p in model.parameters())


def metadata_of(model: nn.Module, notes: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that the file carries: each layer's bits and groups, and the notes."""
    weights = quantized_weights(model)
    layers: dict[str, dict[str, Any]] = {
        name: {"weight_bits": w.bits} for name, w in weights.items()
    }
    for name, q in quantizers(model).items():
        groups = {"groups": q.grouping.tag, "num_groups": q.num_groups}
        layers[name] = {**layers.get(name, {}), "activation_bits": q.bits, **groups}
    return {"igq.layers": _json(layers), "igq.notes": _json(dict(notes))}


def _preprocessing(model: Any) -> dict[str, Any]:
    """Return the preprocessing that timm notes in a model."""
    noted, patches = model.pretrained_cfg, model.patch_embed
    size = [patches.proj.in_channels, *patches.img_size]
    config: dict[str, Any] = {"input_size": size}
    config |= {key: noted[key] for key in ("interpolation", "crop_pct") if key in noted}
    for key in ("mean", "std"):
        config |= (
            {key: [noted[key][i % len(noted[key])] for i in range(size[0])]} if key in noted else {}
        )
    return {"config": config, "num_classes": model.num_classes}


def _json(value: Any) -> str:
    try:
        return json.dumps(value, indent=1) + "\n"
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"`notes` must be JSON, but are not: {error}") from error
