"""The runtime's operators for torch: `igq::linear` and `igq::self_attention`.

Both take a panel (`igq.runtime.panels`) as a tensor of bytes. They run in the compiled library on
as many threads as torch has, or without one in torch, slowly, which is said once. With the library
this module needs torch alone, and so has no types for shapes: a program of `torch.export` runs
where little else is installed.
"""

import warnings
from functools import cache

import torch
from torch import Tensor

from igq.errors import IgqWarning, RuntimeLibraryError
from igq.runtime.library import checked, library

_OPERATORS = torch.library.Library("igq", "FRAGMENT")


def linear(
    x: Tensor,
    panel: Tensor,
    outputs: int,
    residual: Tensor | None = None,
    target: str = "",
) -> Tensor:
    """Return the outputs of a quantized linear layer, `residual` added.

    `x` is (images, tokens..., inputs), the panel bytes, and the result and `residual` are (images,
    tokens..., outputs). `target` is an instruction set of `igq.runtime.library.targets`; the best
    one by default.

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
    _check_shape("x", x, x.ndim >= 2, "(images, tokens..., inputs)")
    shape = (*x.shape[:-1], outputs)
    if residual is not None and residual.shape != shape:
        raise RuntimeLibraryError(
            f"`residual` must have shape {list(shape)}, but has {list(residual.shape)}."
        )
    loaded = library()
    if loaded is None:
        _say_slow()
        from igq.runtime import reference  # needs all of igq

        return reference.linear(x, panel, outputs, residual)
    x, panel = _ready(x), _bytes(panel)
    residual = None if residual is None else _ready(residual)
    y = x.new_empty(shape)
    loaded.igq_set_threads(torch.get_num_threads())
    tokens = x[0].numel() // max(x.shape[-1], 1) if len(x) else 1
    size = (panel.data_ptr(), panel.numel())
    added = None if residual is None else residual.data_ptr()
    counts = (len(x), tokens, x.shape[-1], outputs)
    checked(loaded.igq_linear(target.encode(), *size, x.data_ptr(), added, y.data_ptr(), *counts))
    return y


def self_attention(qkv: Tensor, panel: Tensor, target: str = "") -> Tensor:
    """Return each query's mean of the values, from q, k and v side by side, heads within.

    `qkv` is (images, tokens, 3 x channels), the panel bytes, the result (images, tokens, channels).

    Raises:
        RuntimeLibraryError: the panel is damaged, or of an attention of another shape.

    >>> from igq.grouping import HEAD_CHANNELS, HEAD_TOKENS, ContiguousKeys, SliceQuantizer
    >>> from igq.runtime.panels import attention_panel
    >>> q, v = SliceQuantizer(8, HEAD_TOKENS), SliceQuantizer(8, HEAD_CHANNELS)
    >>> panel = attention_panel(1, 4, (q, q, v, SliceQuantizer(8, ContiguousKeys(), 1)))
    >>> self_attention(torch.ones(1, 2, 12), panel)[0, 0].round()
    tensor([1., 1., 1., 1.])
    """
    whole = qkv.ndim == 3 and qkv.shape[-1] % 3 == 0
    _check_shape("qkv", qkv, whole, "(images, tokens, 3 x channels)")
    channels = qkv.shape[-1] // 3
    loaded = library()
    if loaded is None:
        _say_slow()
        from igq.runtime import reference

        return reference.self_attention(qkv, panel)
    qkv, panel = _ready(qkv), _bytes(panel)
    y = qkv.new_empty(*qkv.shape[:-1], channels)
    loaded.igq_set_threads(torch.get_num_threads())
    q, k, v = (qkv.data_ptr() + 4 * i * channels for i in range(3))
    size = (panel.data_ptr(), panel.numel())
    counts = (len(qkv), qkv.shape[1], channels)
    arguments = (q, k, v, qkv.shape[-1], y.data_ptr(), *counts)
    checked(loaded.igq_attention(target.encode(), *size, *arguments))
    return y


def _check_shape(name: str, x: Tensor, fits: bool, shape: str) -> None:
    """Refuse a tensor whose shape the library would misread.

    Raises:
        RuntimeLibraryError: it does not fit.
    """
    if not fits:
        raise RuntimeLibraryError(f"`{name}` must be {shape}, but has shape {list(x.shape)}.")


def _bytes(panel: Tensor) -> Tensor:
    """Return a panel as the library reads it.

    Raises:
        RuntimeLibraryError: it is not bytes on the CPU.
    """
    if panel.dtype is not torch.uint8 or panel.device.type != "cpu":
        raise RuntimeLibraryError(
            f"a panel must be bytes on the CPU, but is {panel.dtype} on {panel.device}."
        )
    return panel.contiguous()


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
