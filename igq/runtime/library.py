"""The compiled library: where it is, and its functions.

It is built into wheels (igq/runtime/CMakeLists.txt). A checkout without a compiler has none; then
`igq.runtime.reference` computes the same, slowly.
"""

import ctypes
from functools import cache
from pathlib import Path

from igq.errors import RuntimeLibraryError

TARGETS = ("avx512", "avx_vnni", "avx2", "arm_i8mm", "portable")
"""Instruction sets that the library is compiled for, best first: three of x86, one of ARM, any."""
_FOLDER = Path(__file__).parent
_NAMES = ("libigq_runtime.so", "libigq_runtime.dylib", "igq_runtime.dll")

_pointer, _int = ctypes.c_void_p, ctypes.c_int64
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "igq_error": (ctypes.c_char_p, []),
    "igq_target": (ctypes.c_char_p, [ctypes.c_char_p]),
    "igq_set_threads": (None, [_int]),
    "igq_linear": (
        ctypes.c_int,
        [ctypes.c_char_p, _pointer, _int, *[_pointer] * 3, *[_int] * 4],
    ),
    "igq_attention": (
        ctypes.c_int,
        [ctypes.c_char_p, _pointer, _int, *[_pointer] * 3, _int, _pointer, *[_int] * 3],
    ),
    "igq_quantize": (
        ctypes.c_int,
        [ctypes.c_char_p, _pointer, _int, _pointer, _pointer, *[_int] * 3],
    ),
    "igq_quantize_map": (
        ctypes.c_int,
        [ctypes.c_char_p, _pointer, _int, _pointer, _pointer, _int, _int],
    ),
}


def library_path() -> Path | None:
    """Return the compiled library, which onnxruntime loads too; None where there is none.

    >>> path = library_path()
    >>> path is None or path.is_file()
    True
    """
    return next((_FOLDER / name for name in _NAMES if (_FOLDER / name).is_file()), None)


@cache
def library() -> ctypes.CDLL | None:
    """Return the library, loaded; None where there is none.

    Raises:
        RuntimeLibraryError: there is one, but it is damaged or of another version.
    """
    path = library_path()
    if path is None:
        return None
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise RuntimeLibraryError(f"{path} must be this version's library: {error}") from error
    return loaded


def targets() -> tuple[str, ...]:
    """Return the instruction sets of the library that this processor has, best first.

    >>> set(targets()) <= set(TARGETS)
    True
    """
    loaded = library()
    if loaded is None:
        return ()
    return tuple(name for name in TARGETS if loaded.igq_target(name.encode()) is not None)


def checked(status: int) -> None:
    """Raise what a function of the library refused.

    Raises:
        RuntimeLibraryError: `status` is not 0; the message is the library's.
    """
    loaded = library()
    if status and loaded is not None:
        raise RuntimeLibraryError(loaded.igq_error().decode())
