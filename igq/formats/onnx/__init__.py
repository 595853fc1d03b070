"""Quantized models as ONNX: the only part of igq that imports onnx and onnxruntime.

Both come with the extra `onnx`; they are imported when a model is written.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from igq.errors import ArtifactError

__all__ = ["write_onnx", "write_onnx_igq"]


def write_onnx(model: nn.Module, path: str | Path, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a quantized model in standard ONNX operators to a new folder, whole or not at all.

    The folder holds `model.onnx` (opset 21; input `images`, (batch, channels, height, width) in the
    model's own normalisation; output `logits`, (batch, classes)) with settings and notes as
    metadata, `preprocessing.json`, and the digests of both. Any runtime that has the opset runs
    it. Before the folder appears, ONNX's checker has seen the model and onnxruntime has run it:
    each layer gave what the torch module gives for the same input. `notes` must be JSON.

    Raises:
        ArtifactError: `model` is not quantized or does not fit into a file, `path` exists already
            or cannot be written, or onnx or onnxruntime is not installed.
        UnsupportedModelError: the model is no plain ViT, or a part of it has no ONNX form.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> candidates = igq.fit(igq.observe(vit, torch.rand(4, 3, 32, 32)), num_groups=(4,), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = write_onnx(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> sorted(file.name for file in path.iterdir())
    ['manifest.json', 'model.onnx', 'preprocessing.json']
    """
    _check_installed("onnx", "onnxruntime")
    from igq.formats.onnx.standard import write  # onnx takes a while to import

    return write(model, Path(path), notes or {})


def write_onnx_igq(
    model: nn.Module, path: str | Path, notes: Mapping[str, Any] | None = None
) -> Path:
    """Write a quantized model in the runtime's operators to a new folder, whole or not at all.

    The folder is that of `write_onnx`, but `model.onnx` has five nodes a block, which are quick:
    an onnxruntime session must register the library of `igq.runtime.library_path()`.

    Raises:
        ArtifactError: `model` is not quantized or does not fit into a file, `path` exists already
            or cannot be written, or onnx is not installed.
        UnsupportedModelError: the model is no plain ViT, or a part of it has no operator.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> candidates = igq.fit(igq.observe(vit, torch.rand(4, 3, 32, 32)), num_groups=(4,), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = write_onnx_igq(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> sorted(file.name for file in path.iterdir())
    ['manifest.json', 'model.onnx', 'preprocessing.json']
    """
    _check_installed("onnx")
    from igq.formats.onnx.operators import write

    return write(model, Path(path), notes or {})


def _check_installed(*names: str) -> None:
    """Refuse a format whose packages are not there.

    Raises:
        ArtifactError: one is not installed.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ArtifactError(
            f"the format onnx needs {' and '.join(missing)}, which must be installed: "
            "pip install 'igq-vit[onnx]'"
        )
