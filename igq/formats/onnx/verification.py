"""Comparison of an ONNX graph with the torch model that it was made from, layer by layer.

Rounding is chaotic: an input that differs by 1e-7 makes some other codes in the next layer, many
in the layers after it. So each layer, and each block, is compared on the input that it has in the
graph: there only the order of sums differs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from igq.errors import ArtifactError
from igq.formats.onnx.plain import INPUT, OUTPUT
from igq.modules import Linear
from igq.vit import stages

IMAGES = 2
"""Images of noise that models are compared on: more than one, as the batch is dynamic."""
MOST_OF_LAYERS, MOST_OF_BLOCKS = 0.02, 0.1
"""The greatest difference as a share of the outputs, root mean squares of both. Layers differ by
2e-7 and blocks by 0.006 with real weights; a grouping that is not the model's by 0.1 and more."""


def session(model: bytes, threads: int = 1) -> Any:
    """Return an onnxruntime session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def verify(exported: onnx.ModelProto, model: nn.Module) -> None:
    """Refuse a graph that does not compute what the torch model does.

    Raises:
        ArtifactError: a layer or block differs; the message names it.
    """
    generator = torch.Generator().manual_seed(0)
    shape = [d.dim_value for d in exported.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = torch.rand(IMAGES, *shape, generator=generator)
    logits = session(exported.SerializeToString()).run(None, {INPUT: images.numpy()})[0]
    if not np.isfinite(logits).all():
        raise ArtifactError("the logits of the ONNX model must be finite, but are not.")
    for name, difference in differences(exported, model, images).items():
        most = MOST_OF_BLOCKS if _is_stage(name) else MOST_OF_LAYERS
        if not difference <= most:
            raise ArtifactError(
                f"{name} must give in onnxruntime {onnxruntime.__version__} what it gives in torch "
                f"for the same input, but differs by {difference:.2g} of its outputs."
            )


@torch.inference_mode()
def differences(exported: onnx.ModelProto, model: nn.Module, images: Tensor) -> dict[str, float]:
    """Return by how much each linear layer and stage differs on its own input in the graph.

    A difference is a root mean square, as a share of the outputs'; of a block, of what it adds to
    its input.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    steps = stages(model)
    ends = {name: _ends(exported, name) for name in linears}
    ends |= _ends_of_stages(exported, len(steps) - 2)
    values = _values(exported, {value for pair in ends.values() for value in pair}, images)
    device = next(model.parameters()).device
    found = {}
    for name, (first, last) in ends.items():
        x, y = (values[value].to(device) for value in (first, last))
        module = steps[int(name.split()[1])] if _is_stage(name) else model.get_submodule(name)
        x = x if _is_one_row(name, x) else x.unflatten(0, (len(images), -1))
        expected = module(x)
        added = x if x.shape == expected.shape and _is_stage(name) else torch.zeros_like(expected)
        wanted = (expected - added).reshape(y.shape)
        found[name] = _share(y - added.reshape(y.shape) - wanted, wanted)
    return found


def _is_stage(name: str) -> bool:
    return name.startswith("stage ")


def _is_one_row(name: str, x: Tensor) -> bool:
    """Return whether an input is as torch has it: images, or one row of each."""
    return x.ndim > 2 or name.startswith("head")


def _share(difference: Tensor, wanted: Tensor) -> float:
    size = wanted.double().square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    return (difference.double().square().mean().sqrt() / size).item()


def _ends_of_stages(exported: onnx.ModelProto, blocks: int) -> dict[str, tuple[str, str]]:
    ends = [_ends(exported, f"blocks.{i}") for i in range(blocks)]
    first, last = (INPUT, ends[0][0]), (ends[-1][1], OUTPUT)
    return {f"stage {i}": pair for i, pair in enumerate((first, *ends, last))}


def _ends(exported: onnx.ModelProto, name: str) -> tuple[str, str]:
    """Return the value that the nodes of a module start from, and the one that they end in."""
    nodes = [n for n in exported.graph.node if n.name.startswith((f"{name}/", f"{name}."))]
    return nodes[0].input[0], nodes[-1].output[0]


def _values(exported: onnx.ModelProto, names: set[str], images: Tensor) -> Mapping[str, Tensor]:
    """Return values inside the graph for these images."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(exported)
    inner = sorted(names - {INPUT, OUTPUT})
    tapped.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner
    )
    outputs = session(tapped.SerializeToString()).run([OUTPUT, *inner], {INPUT: images.numpy()})
    seen = {
        name: torch.from_numpy(value) for name, value in zip([OUTPUT, *inner], outputs, strict=True)
    }
    return seen | {INPUT: images}
