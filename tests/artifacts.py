"""Artifacts of the tiny model for digits."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import igq
from pipeline.data import Preprocessing


def digits_notes(model: nn.Module) -> dict[str, Any]:
    """The notes that running an artifact needs."""
    made = asdict(Preprocessing.of(model))
    return {"preprocessing": {key: made[key] for key in ("config", "num_classes")}}


def digits_artifact(
    path: Path, model: nn.Module, notes: Mapping[str, Any] | None = None, bits: int = 8
) -> Path:
    """Write the model, quantized on noise."""
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    candidates = igq.fit(igq.observe(model, images), (2,), bits)
    quantized = igq.quantize(model, candidates.select(igq.uniform(candidates.layers, 2)), bits)
    return igq.save(quantized, path, digits_notes(model) | dict(notes or {}))
