"""A file of `torch.export`, searched for everything that could be code before torch reads it.

`torch.export.load` unpickles weights, constants and examples where a file asks for it, starts
shared libraries that it brings, evaluates its expressions of sizes, follows any name from `torch`
on (`torch.os.system`), and compiles names of values into Python. So names of members, operators and
values are compared with those that an exported model has, and everything else is refused.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from torch.export.pt2_archive import PT2ArchiveReader

from igq.formats.integrity import MOST_JSON_BYTES, DamagedError, check_json

GRAPH, EXAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
CONFIGS = {
    WEIGHTS: f"{WEIGHTS}model_weights_config.json",
    CONSTANTS: f"{CONSTANTS}model_constants_config.json",
}
_MEMBER = re.compile(
    r"data/weights/weight_\d{1,6}|data/constants/tensor_\d{1,6}|extra/igq\.(layers|notes)"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
_OPERATOR = re.compile(r"torch\.ops\.(aten|igq)\.(\w{1,64})\.\w{1,64}")
_NAMES = (
    "_assert_tensor_metadata _upsample_bicubic2d_aa add add_ alias amax amin arange argmin cat "
    "chunk clamp clamp_ contiguous cos div dropout expand flatten floor_divide gather gelu index "
    "layer_norm linear mT matmul mean meshgrid mul mul_ neg pad permute repeat_interleave reshape "
    "rms_norm roll round round_ rsub scatter_reduce select self_attention silu sin slice softmax "
    "square stack sub sub_ sum sym_size to transpose type_as unbind unflatten unsqueeze view "
    "zeros_like "
)
OPERATORS = frozenset(_NAMES.split())
"""Operators of torch and of the runtime in models of all families: none reads or writes files."""
_PLAIN = re.compile(r"[\w.]{0,300}")
"""Names: in a program nothing else is text, but for the following keys."""
_SIZE = re.compile(r"[\w\s(),='-]{1,200}")
_SPEC = re.compile(r"""[\w\s\[\]{}",:.]{1,1000}""")
_PARTS = {
    "expr_str": (_SIZE, {"Symbol", "positive", "integer", "True", "Integer", "Mul", "Add"}),
    "in_spec": (_SPEC, {"type", "context", "children_spec", "null"}),
    "out_spec": (_SPEC, {"type", "context", "children_spec", "null"}),
}
"""Keys of expressions and of structures of arguments, with the characters and words of each."""
_BUILT_IN = {"builtins.tuple", "builtins.dict"}
_FREE = {"torch_version"}
"""Keys of texts that torch compares at most."""
_TOKENS = re.compile(r"[A-Za-z_][\w.]*")
_SYMBOL = re.compile(r"[su]\d{1,9}")


def check_archive(file: str, held: io.BytesIO) -> None:
    """Refuse a program that could run code of its own when torch reads it, or is absurdly large.

    Raises:
        DamagedError: `file` is no such archive, or a part of it is not what igq writes.
    """
    try:
        held.seek(0)
        reader = PT2ArchiveReader(held)
        names = reader.get_file_names()
        sizes = _sizes(held)
    except (RuntimeError, zipfile.BadZipFile, AttributeError) as error:
        raise DamagedError(file, f"it must be an archive of torch.export, but: {error}") from error
    if sorted(names) != sorted(sizes):
        raise DamagedError(file, "its members must be the same for every reader, but are not")
    for name in names:
        if not (_MEMBER.fullmatch(name) or name in (GRAPH, EXAMPLES, *CONFIGS.values())):
            raise DamagedError(file, f"it must hold tensors and a graph alone, but has {name!r}")
    if sizes.get(EXAMPLES):
        raise DamagedError(file, "it must hold no examples, which are pickles, but does")
    for folder, config in CONFIGS.items():
        for entry in _entries(file, reader, config):
            _check_tensor(file, entry, folder, sizes)
    _check_graph(file, _json(file, reader, GRAPH))


def _sizes(held: io.BytesIO) -> dict[str, int]:
    """Return members, without the archive's own name in front, and their bytes."""
    with zipfile.ZipFile(held) as archive:
        infos = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise zipfile.BadZipFile("a member is compressed")
    return {info.filename.partition("/")[2]: info.file_size for info in infos}


def _json(file: str, reader: Any, member: str) -> dict[str, Any]:
    content = reader.read_bytes(member)
    if len(content) > MOST_JSON_BYTES:
        raise DamagedError(file, f"{member} must have at most {MOST_JSON_BYTES} bytes")
    try:
        read = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(file, f"{member} must be JSON, but: {error}") from error
    check_json(file, read)
    if not isinstance(read, dict):
        raise DamagedError(file, f"{member} must hold an object, but does not")
    return read


def _entries(file: str, reader: Any, member: str) -> Iterator[dict[str, Any]]:
    held = _json(file, reader, member).get("config")
    if not isinstance(held, dict):
        raise DamagedError(file, f"{member} must name tensors, but does not")
    for name, entry in held.items():
        if not _PLAIN.fullmatch(name) or not isinstance(entry, dict):
            raise DamagedError(file, f"{member} must name tensors, but has {name!r:.80}")
        yield entry


def _check_tensor(file: str, entry: dict[str, Any], folder: str, sizes: dict[str, int]) -> None:
    """Refuse a tensor that is a pickle, or that is larger than its bytes.

    Raises:
        DamagedError: it is.
    """
    place = f"{folder}{entry.get('path_name')}"
    if entry.get("use_pickle") is not False or place not in sizes:
        raise DamagedError(file, f"{place!r:.80} must be a tensor in bytes, but is not")
    try:
        shape = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
        wanted = math.prod(shape)
    except (KeyError, TypeError) as error:
        raise DamagedError(file, f"{place} must have a shape, but has none") from error
    if any(type(size) is not int or size < 0 for size in shape) or wanted > sizes[place]:
        raise DamagedError(file, f"{place} must have the bytes of its shape {shape}, but has not")


def _check_graph(file: str, held: dict[str, Any]) -> None:
    """Refuse a graph with other operators, names or expressions than a model's.

    Raises:
        DamagedError: it has some; the message holds it.
    """
    if held.get("guards_code") not in (None, []):
        raise DamagedError(file, "its graph must have no code of guards, but has")
    for key, text in _texts(held):
        if not _is_harmless(key, text):
            raise DamagedError(file, f"its graph must be a model's, but has {key} {text!r:.80}")


def _is_harmless(key: str, text: str) -> bool:
    """Return whether a text of a graph is one of those that a model's may have under its key."""
    if key == "target":
        found = _OPERATOR.fullmatch(text)
        return found is not None and found[2] in OPERATORS
    if key in _PARTS:
        characters, known = _PARTS[key]
        words = {w for w in _TOKENS.findall(text) if not _SYMBOL.fullmatch(w)}
        return characters.fullmatch(text) is not None and words <= known | _BUILT_IN
    return key in _FREE or _PLAIN.fullmatch(text) is not None


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text within a value with the key that it stands under; keys too."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "key", name
            yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str):
        yield key, value
