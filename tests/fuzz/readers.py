"""The readers of files from outside, each as a function of a file's content.

A reader takes the content, or refuses it with one of the project's errors in printable words.
Whatever else it raises is a finding.
"""

import atexit
import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import save

import igq
from igq import Limits
from igq.errors import IgqError
from igq.formats import read_allocation
from igq.formats.integrity import sealed
from igq.vit.reading import read_checkpoint
from pipeline.data import Preprocessing
from pipeline.data.classes import read_classes
from pipeline.data.labels import read_labels
from pipeline.data.pixels import naming, read_image
from pipeline.preparation.costs.latency import read_profile
from pipeline.preparation.study import Study
from pipeline.proposals import read_trials
from pipeline.study.definition import Definition
from pipeline.study.folder import Folder
from search_spaces import SearchSpaceError, load
from tests.golden.make_study import STUDIES, unpack, weights

Read = Callable[[bytes, Path], object]
ARTIFACT = STUDIES.parent / "artifact_schema_5"
SEEDS = Path(__file__).parent / "seeds"
LONGEST = 4000
"""Characters of the longest message that a person is given."""


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _space(content: bytes, folder: Path) -> object:
    return load(_written(folder, "space.yaml", content))


def _journal(content: bytes, folder: Path) -> object:
    return read_trials(_written(folder, "journal.log", content), "groups", _limits())


def _definition(content: bytes, folder: Path) -> object:
    _written(folder, "study.json", _sealed(content))
    return Definition.read(Folder(folder))


def _allocation(content: bytes, folder: Path) -> object:
    return read_allocation(_written(folder, "allocation.json", content))


def _manifest(content: bytes, folder: Path) -> object:
    """Read an artifact whose manifest was changed, and then sealed as an attacker would."""
    _written(folder, "manifest.json", _sealed(content))
    for name in ("model.safetensors", "allocation.json", "README.md"):
        (folder / name).hardlink_to(_near(ARTIFACT / name))
    return igq.load(folder)


def _sealed(content: bytes) -> bytes:
    """Return JSON with the digest of what it now says, as whoever edits on purpose would."""
    try:
        found = json.loads(content)
        if found.pop("digest", None):
            return json.dumps(sealed(found)).encode()
    except (ValueError, AttributeError, RecursionError, TypeError):
        pass
    return content


@cache
def _near(file: Path) -> Path:
    """Return a copy of a file on the disk that temporary folders are on."""
    copy = Path(tempfile.gettempdir(), f"igq-fuzz-{os.getpid()}-{file.name}")
    atexit.register(copy.unlink)
    return Path(shutil.copy(file, copy))


def _tensors(content: bytes, folder: Path) -> object:
    return read_checkpoint(_written(folder, "weights.safetensors", content))


def _checkpoint(content: bytes, folder: Path) -> object:
    return read_checkpoint(_written(folder, "weights.pth", content))


def _image(content: bytes, folder: Path) -> object:
    path = _written(folder, "image.png", content)
    with naming(path):
        return _transform()(read_image(path))


def _latencies(content: bytes, folder: Path) -> object:
    return read_profile(_written(folder, "latency.json", content))


def _classes(content: bytes, folder: Path) -> object:
    """Read names of classes; the first byte says in which form they are."""
    ending = ("txt", "csv", "json")[(content[:1] or b"0")[0] % 3]
    return read_classes(str(_written(folder, f"classes.{ending}", content[1:])))


def _labels(content: bytes, folder: Path) -> object:
    """Read labels of images; the first byte says in which form they are."""
    (folder / "a.png").touch()
    ending = ("csv", "json")[(content[:1] or b"0")[0] % 2]
    return read_labels(_written(folder, f"labels.{ending}", content[1:]), folder)


READERS: Mapping[str, Read] = {
    "space": _space,
    "journal": _journal,
    "definition": _definition,
    "allocation": _allocation,
    "manifest": _manifest,
    "tensors": _tensors,
    "checkpoint": _checkpoint,
    "image": _image,
    "latencies": _latencies,
    "classes": _classes,
    "labels": _labels,
}


def tried(name: str, content: bytes) -> str | None:
    """Have a reader read content; return the message that it refuses with, None if it takes it.

    Raises:
        Exception: the reader fails in another way, or its message is not fit to print.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            READERS[name](content, Path(folder))
        except (IgqError, SearchSpaceError) as error:
            message = str(error)
        else:
            return None
    assert message, "a refusal without a word"
    assert all(line.isprintable() for line in message.split("\n")), ascii(message)
    assert len(message) <= LONGEST, f"a message of {len(message)} characters"
    return message


@cache
def _transform() -> Callable[[Any], object]:
    return Preprocessing({"input_size": (3, 8, 8)}, 10).transform()


@cache
def _limits() -> Limits:
    with tempfile.TemporaryDirectory() as folder:
        unpack("groups", study := Path(folder) / "study")
        return Study.open(study, weights()).limits


def whole_files(name: str) -> Iterator[bytes]:
    """Yield content that a reader takes: the ground from which others are made."""
    yield from _WHOLE[name]()


def _spaces() -> Iterator[bytes]:
    for name in ("demo", "deit_tiny_mixed_small", "vit_tiny_w4a4_tied"):
        yield Path(f"search_spaces/{name}.yaml").read_bytes()
    content: dict[str, Any] = {
        "model": "vit_tiny_patch16_224",
        "weight_bits": [3, 4],
        "activation_bits": 4,
        "num_groups": [1, 2],
        "max_size": "3.2 MB",
        "budget": {"latency": "14 ms", "table": "latency.json"},
    }
    yield yaml.safe_dump(content).encode()


def _journals() -> Iterator[bytes]:
    packed = STUDIES / "groups" / "journal.log.gz"
    lines = gzip.decompress(packed.read_bytes()).splitlines(keepends=True)
    yield b"".join(lines[:120])
    yield b"".join(lines[:15])


def _definitions() -> Iterator[bytes]:
    content = (STUDIES / "mixed" / "study.json").read_bytes()
    yield content
    named = {"schema": 2, "id": "key-nonce", "key": "key", "digest": "of what it says"}
    yield json.dumps(json.loads(content) | named).encode()


def _images() -> Iterator[bytes]:
    picture = Image.radial_gradient("L").resize((9, 7))
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "TGA", "PPM", "ICO", "JPEG2000"):
        buffer = io.BytesIO()
        picture.convert("RGBA" if kind in ("PNG", "ICO") else "RGB").save(buffer, kind)
        yield buffer.getvalue()


def _checkpoints() -> Iterator[bytes]:
    tensors = {"head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}
    for zipped in (True, False):
        buffer = io.BytesIO()
        content = {"model": tensors, "epoch": 3, "class_to_idx": {"cat": 0}}
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        yield buffer.getvalue()


def _latency_tables() -> Iterator[bytes]:
    timings = {"w4a4g2": {"median_ms": 0.5, "spread_ms": 0.1, "fitted": True}}
    operator = {"kind": "linear", "shape": [17, 12, 36], "layers": ["a"], "timings": timings}
    scheme = {name: value.value for name, value in vars(igq.Scheme.BEST).items()}
    content = {
        "schema": 1,
        "target": "here",
        "machine": {"processor": "x", "instructions": "avx2", "threads": 1},
        "runtime": "0.2.0",
        "model": "vit_tiny_patch16_224",
        "scheme": scheme,
        "rest_ms": 0.5,
        "operators": [operator],
    }
    yield json.dumps(content).encode()


_WHOLE: Mapping[str, Callable[[], Iterator[bytes]]] = {
    "space": _spaces,
    "journal": _journals,
    "definition": _definitions,
    "allocation": lambda: iter([(ARTIFACT / "allocation.json").read_bytes()]),
    "manifest": lambda: iter([(ARTIFACT / "manifest.json").read_bytes()]),
    "tensors": lambda: iter([save({"a": torch.ones(2, 3)}, {"format": "pt"})]),
    "checkpoint": _checkpoints,
    "image": _images,
    "latencies": _latency_tables,
    "classes": lambda: iter([b"0cat\ndog\n", b"1name,number\ncat,0\ndog,1\n", b'2{"0": "cat"}']),
    "labels": lambda: iter([b"0path,class\na.png,cat\n", b'1{"a.png": "cat"}']),
}
