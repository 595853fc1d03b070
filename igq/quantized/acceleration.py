"""The same model, computed faster: compiled blocks, one step per tensor, bfloat16 products.

Quantizers act in float32 as they do in the eager model. Only products of quantized operands are
in bfloat16, whose eight digits hold every code exactly.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from igq.grouping import GroupQuantizer
from igq.modules import (
    Attention,
    FakeQuantize,
    FakeQuantizeSlices,
    Linear,
    SwitchedFakeQuantize,
)
from igq.quantized.swap import quantizers

OPTIONS = {"cpp.dynamic_threads": True}
"""One cached compilation serves workers with any number of threads."""
VARIANTS = 64
"""Compilations of a block that may live in one process: widths, batch sizes, kinds of slots."""


@dataclass(frozen=True)
class Execution:
    """The execution of a quantized model.

    >>> Execution()
    Execution(compiled=False, bfloat16=False)
    """

    compiled: bool = False
    """Blocks are compiled: the first time takes up to a minute, later processes a few seconds."""
    bfloat16: bool = False
    """Products of quantized operands are in bfloat16, all else in float32."""


EAGER = Execution()
"""Computed as it is written: the reference for every other way."""


def fastest(device: torch.device | str = "cpu") -> Execution:
    """Return compiled where there is a compiler, bfloat16 where the hardware multiplies in it."""
    if torch.device(device).type == "cuda":
        return Execution(compiled=True, bfloat16=torch.cuda.is_bf16_supported())
    compilers = (os.environ.get("CXX"), "g++", "clang++")
    found = any(shutil.which(compiler) for compiler in compilers if compiler)
    return Execution(compiled=found, bfloat16=torch.cpu._is_avx512_bf16_supported())


def accelerate(model: nn.Module, execution: Execution, capacity: int = 1) -> nn.Module:
    """Change a model made by `assemble` or `quantize` in place so that it is computed so.

    Every quantizer in a block can be exchanged by `set_quantizers` without compiling anew, as long
    as it has at most `capacity` groups, or no more than the most that the model has now. Patch
    embedding and head stay as they are, and so do models of other types than float32.
    """
    if execution.compiled:
        torch._dynamo.config.recompile_limit = VARIANTS
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
    held = (q for q in quantizers(model).values() if isinstance(q, GroupQuantizer))
    capacity = max((capacity, *(quantizer.num_groups for quantizer in held)))
    for block in _blocks(model):
        weight = next(block.parameters())
        bfloat16 = execution.bfloat16 and weight.dtype is torch.float32
        for name, slot in list(block.named_modules()):
            if execution.compiled and isinstance(slot, (FakeQuantize, FakeQuantizeSlices)):
                block.set_submodule(name, _switched(slot, capacity).to(weight.device))
            elif bfloat16 and isinstance(slot, Linear):
                slot.in_bfloat16()
            elif bfloat16 and isinstance(slot, Attention):
                slot.bfloat16_products = True
        if execution.compiled:
            block.compile(dynamic=False, options=OPTIONS)
    return model


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that hold an attention, which repeat."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Attention):
            yield model.get_submodule(name.rpartition(".")[0])


def _switched(slot: FakeQuantize | FakeQuantizeSlices, capacity: int) -> SwitchedFakeQuantize:
    quantizer = slot.quantizer
    fitted = isinstance(quantizer, GroupQuantizer)
    switched = SwitchedFakeQuantize(quantizer.grouping, capacity if fitted else 0)
    switched.load(quantizer)
    return switched
