"""A quantized model in standard ONNX operators: built, checked, compared with torch, written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from igq.errors import ArtifactError
from igq.formats.drafts import new_folder, seal
from igq.formats.metadata import check_quantized, metadata_of, texts_of
from igq.formats.onnx.parts import PACKED_BITS
from igq.formats.onnx.plain import plain_graph
from igq.formats.onnx.verification import verify
from igq.quantized import quantized_weights

FILE = "model.onnx"
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
    texts = texts_of(model, notes)
    with new_folder(path) as draft:
        (draft / FILE).write_bytes(exported.SerializeToString(deterministic=True))
        for name, text in texts.items():
            (draft / name).write_text(text)
        seal(draft, kind)
    return path


def check(model: nn.Module, path: Path) -> None:
    """Refuse a model or path before any work.

    Raises:
        ArtifactError: see `write`.
    """
    check_quantized(model, path)
    weights = quantized_weights(model)
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
