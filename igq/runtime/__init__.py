"""The runtime: quantized layers as operators in C++, for torch and for onnxruntime.

    deploy(model)             a copy whose layers are operators, several times faster
    library_path()            the library that an onnxruntime session registers
    panels                    everything that an operator needs of its layer, as bytes
    src/                      the operators, compiled for several instruction sets

Codes are those of `igq.grouping` and `igq.arithmetic`, bit for bit.
"""

from igq.runtime.deployment import deploy
from igq.runtime.library import library_path, targets

__all__ = ["deploy", "library_path", "targets"]
