"""The runtime's operators for torch: `igq::linear` and `igq::self_attention`.

Both take a panel (`igq.runtime.panels`) as a tensor of bytes. They run in the compiled library on
as many threads as torch has, or without one in torch, slowly, which is said once.
"""

import warnings
from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from igq.errors import IgqWarning, RuntimeLibraryError
from igq.runtime import reference
from igq.runtime.library import checked, library

_OPERATORS = torch.library.Library("igq", "FRAGMENT")


def linear(
    x: Float[Tensor, "images *tokens inputs"],
    panel: UInt8[Tensor, " size"],
    outputs: int,
    residual: Float[Tensor, "images *tokens outputs"] | None = None,
    target: str = "",
) -> Float[Tensor, "images *tokens outputs"]:
    """Return the outputs of a quantized linear layer, `residual` added.

    `target` is an instruction set of `igq.runtime.library.targets`; the best one by default.

    Raises:
        RuntimeLibraryError: the panel is damaged, or of a layer of another shape.

    >>> from igq.arithmetic.weights import quantize_weight
    >>> from igq.grouping import TOKENS, SliceQuantizer
    >>> from igq.runtime.panels import LinearLayer, linear_panel
    >>> weight = quantize_weight(torch.eye(2), bits=8)
    >>> panel = linear_panel(LinearLayer(weight, SliceQuantizer(8, TOKENS)))
    >>> linear(torch.tensor([[[0.0, 255.0]]]), panel, outputs=2).round()
    tensor([[[  0., 255.]]])
    """
    shape = (*x.shape[:-1], outputs)
    if residual is not None and residual.shape != shape:
        raise RuntimeLibraryError(
            f"`residual` must have shape {list(shape)}, but has {list(residual.shape)}."
        )
    loaded = library()
    if loaded is None:
        _say_slow()
        return reference.linear(x, panel, outputs, residual)
    x, panel = _ready(x), panel.contiguous()
    residual = None if residual is None else _ready(residual)
    y = x.new_empty(shape)
    loaded.igq_set_threads(torch.get_num_threads())
    tokens = x[0].numel() // max(x.shape[-1], 1) if len(x) else 1
    size = (panel.data_ptr(), panel.numel())
    added = None if residual is None else residual.data_ptr()
    counts = (len(x), tokens, x.shape[-1], outputs)
    checked(loaded.igq_linear(target.encode(), *size, x.data_ptr(), added, y.data_ptr(), *counts))
    return y


def self_attention(
    qkv: Float[Tensor, "images tokens channels3"],
    panel: UInt8[Tensor, " size"],
    target: str = "",
) -> Float[Tensor, "images tokens channels"]:
    """Return each query's mean of the values, from q, k and v side by side, heads within.

    Raises:
        RuntimeLibraryError: the panel is damaged, or of an attention of another shape.

    >>> from igq.grouping import HEAD_CHANNELS, HEAD_TOKENS, ContiguousKeys, SliceQuantizer
    >>> from igq.runtime.panels import attention_panel
    >>> q, v = SliceQuantizer(8, HEAD_TOKENS), SliceQuantizer(8, HEAD_CHANNELS)
    >>> panel = attention_panel(1, 4, (q, q, v, SliceQuantizer(8, ContiguousKeys(), 1)))
    >>> self_attention(torch.ones(1, 2, 12), panel)[0, 0].round()
    tensor([1., 1., 1., 1.])
    """
    channels = qkv.shape[-1] // 3
    loaded = library()
    if loaded is None:
        _say_slow()
        return reference.self_attention(qkv, panel)
    qkv, panel = _ready(qkv), panel.contiguous()
    y = qkv.new_empty(*qkv.shape[:-1], channels)
    loaded.igq_set_threads(torch.get_num_threads())
    q, k, v = (qkv.data_ptr() + 4 * i * channels for i in range(3))
    size = (panel.data_ptr(), panel.numel())
    counts = (len(qkv), qkv.shape[1], channels)
    arguments = (q, k, v, qkv.shape[-1], y.data_ptr(), *counts)
    checked(loaded.igq_attention(target.encode(), *size, *arguments))
    return y


def _ready(x: Tensor) -> Tensor:
    """Return `x` as the library reads it.

    Raises:
        RuntimeLibraryError: it is not of float32, or not on the CPU.
    """
    if x.dtype is not torch.float32 or x.device.type != "cpu":
        raise RuntimeLibraryError(
            f"the runtime's input must be float32 on the CPU, but is {x.dtype} on {x.device}."
        )
    return x.contiguous()


@cache
def _say_slow() -> None:
    warnings.warn(
        "igq's compiled runtime is not installed, so that this runs in torch, several times "
        "slower; install a wheel, or build it: `pip install .` with a C++ compiler.",
        IgqWarning,
        stacklevel=3,
    )


def _linear_shape(x: Tensor, panel: Tensor, outputs: int, residual: Tensor | None = None) -> Tensor:
    return x.new_empty(*x.shape[:-1], outputs)


def _attention_shape(qkv: Tensor, panel: Tensor) -> Tensor:
    return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)


def _register() -> None:
    """Define both operators for torch, for the CPU and for shapes alone."""
    _OPERATORS.define(
        "linear(Tensor x, Tensor panel, int outputs, Tensor? residual=None) -> Tensor"
    )
    _OPERATORS.define("self_attention(Tensor qkv, Tensor panel) -> Tensor")
    _OPERATORS.impl("linear", linear, "CPU")
    _OPERATORS.impl("self_attention", self_attention, "CPU")
    torch.library.register_fake("igq::linear", _linear_shape, lib=_OPERATORS)
    torch.library.register_fake("igq::self_attention", _attention_shape, lib=_OPERATORS)


if not hasattr(torch.ops.igq, "linear"):  # a process may read this file twice, as doctests do
    _register()
