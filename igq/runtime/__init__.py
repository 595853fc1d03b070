"""The runtime: quantized layers as operators in C++, for torch and for onnxruntime.

    deploy(model)             a copy whose layers are operators, several times faster
    library_path()            the library that an onnxruntime session registers
    operators                 the operators of torch, defined by importing it; needs torch alone
    panels                    everything that an operator needs of its layer, as bytes
    src/                      the operators, compiled for several instruction sets

Codes are those of `igq.grouping` and `igq.arithmetic`, bit for bit. Names are looked up when they
are first used, so that `operators` can be imported where nothing else of igq can.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igq.runtime.deployment import deploy
    from igq.runtime.library import library_path, targets

__all__ = ["deploy", "library_path", "targets"]
_ROOM_OF = {"deploy": "deployment", "library_path": "library", "targets": "library"}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
