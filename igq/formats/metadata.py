"""Texts that formats beside `native` carry: layers, notes, and how images are made ready."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igq.errors import ArtifactError
from igq.quantized import quantized_weights, quantizers

PREPROCESSING, CLASSES = "preprocessing.json", "classes.json"


def check_quantized(model: nn.Module, path: Path) -> None:
    """Refuse a model without quantized weights or not in float32, and a path that exists.

    Raises:
        ArtifactError: it is one, or does.
    """
    if not quantized_weights(model):
        raise ArtifactError("only a quantized model can be written; make one with igq.quantize.")
    if path.exists():
        raise ArtifactError(f"`path` must not exist yet, but {path} does.")
    dtype = next(model.parameters()).dtype
    if dtype != torch.float32:
        raise ArtifactError(
            f"a model must be in float32 to be written, but is in {dtype}; quantize model.float()."
        )


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


def texts_of(model: nn.Module, notes: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> content of the JSON files beside a model.

    They are the preprocessing of the notes, else of the model, and the names of classes that are
    noted.
    """
    texts = {PREPROCESSING: _json(notes.get("preprocessing") or _preprocessing(model))}
    names = notes.get("classes")
    return texts if names is None else {**texts, CLASSES: _json(names)}


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
