"""Quantized models as programs of `torch.export`, with the runtime's operators.

Such a program runs in a process that has torch and `igq.runtime.operators`: no timm, and nothing
else of igq. It also *is* a program, so that one from outside is read through `read_pt2` alone.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.errors import ArtifactError, UnsupportedModelError
from igq.formats.drafts import check_seal, new_folder, seal
from igq.formats.integrity import DamagedError
from igq.formats.metadata import check_quantized, metadata_of, texts_of
from igq.formats.pt2.archive import check_archive
from igq.runtime import deploy

__all__ = ["FILE", "read_pt2", "write_pt2"]

FILE = "model.pt2"
MOST_IMAGES = 2**16
"""The most images of a batch that a program says it takes."""


def write_pt2(model: nn.Module, path: str | Path, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a quantized model as a program of `torch.export` to a new folder, whole or not at all.

    The folder holds `model.pt2` (images of any number, (images, channels, height, width), in the
    model's own normalisation, to logits, (images, classes)) with settings and notes as extra files,
    `preprocessing.json`, and the digests of both. Layers are `igq.deploy`'s. Before the folder
    appears the file was read again, and predicted what the deployed model does, bit for bit.

    Raises:
        ArtifactError: `model` is not quantized, notes are not JSON, or `path` exists already or
            cannot be written.
        UnsupportedModelError: the runtime lacks a layer, or torch cannot trace the model.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> candidates = igq.fit(igq.observe(vit, torch.rand(4, 3, 32, 32)), num_groups=(4,), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = write_pt2(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> sorted(file.name for file in path.iterdir())
    ['manifest.json', 'model.pt2', 'preprocessing.json']
    """
    path, notes = Path(path), notes or {}
    check_quantized(model, path)
    extra, texts = metadata_of(model, notes), texts_of(model, notes)
    deployed = deploy(model)
    images = _noise(model)
    program = _program(deployed, images[:2])
    held = io.BytesIO()
    torch.export.save(program, held, extra_files=extra)
    with torch.inference_mode():
        if not torch.equal(_checked(held)(images), deployed(images)):
            raise ArtifactError("the program must predict as the deployed model, but does not.")
    with new_folder(path) as draft:
        (draft / FILE).write_bytes(held.getvalue())
        for name, text in texts.items():
            (draft / name).write_text(text)
        seal(draft, "pt2")
    return path


def read_pt2(path: str | Path) -> nn.Module:
    """Return the model of a folder that `write_pt2` wrote, without running any code of it.

    `torch.export.load` runs pickles, shared libraries and expressions that a file brings. Here a
    file must be as it was sealed, and hold tensors and a graph of known operators alone, before
    torch sees it.

    Raises:
        ArtifactError: it is damaged, or has a part that could be code; the message names it.

    >>> read_pt2("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    igq.errors.ArtifactError: nowhere could not be read as an export: manifest.json: ...
    """
    path = Path(path)
    manifest = check_seal(path)
    if manifest.get("kind") != "pt2":
        raise ArtifactError(f"{path} must be of the format pt2, but is {manifest.get('kind')}.")
    try:
        return _checked(io.BytesIO((path / FILE).read_bytes()))
    except (DamagedError, OSError) as error:
        raise ArtifactError(f"{path} could not be read as an export: {error}") from error


def _noise(model: Any) -> Float[Tensor, "images channels height width"]:
    """Return three images: a program that is traced with two must run on others."""
    size = (model.patch_embed.proj.in_channels, *model.patch_embed.img_size)
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(0))


def _program(
    deployed: nn.Module, images: Float[Tensor, "images channels height width"]
) -> torch.export.ExportedProgram:
    """Return the program, without its examples, which are a pickle, and the writer's paths.

    Raises:
        UnsupportedModelError: torch cannot trace the model for any number of images.
    """
    number = torch.export.Dim("images", min=1, max=MOST_IMAGES)
    try:
        program = torch.export.export(deployed, (images,), dynamic_shapes=({0: number},))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UnsupportedModelError(
            f"a model must be traced by torch.export to be written as pt2, but: {error}"
        ) from error
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
    return program


def _checked(held: io.BytesIO) -> nn.Module:
    """Return the model of a file that holds nothing but tensors and a graph.

    Raises:
        DamagedError: it holds something else, or torch does not read it.
    """
    check_archive(FILE, held)
    held.seek(0)
    try:
        # a guard is code that torch writes from names in the file; operators check shapes
        return torch.export.load(held).module(check_guards=False)
    except Exception as error:  # torch names no type
        raise DamagedError(FILE, f"torch {torch.__version__} does not read it: {error}") from error
