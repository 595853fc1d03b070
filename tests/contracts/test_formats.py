"""The contract of a format: what it writes is the model, whole or refused, and never code.

A new format joins by its entry in `FORMATS` of igq and a `Reader` here.
"""

import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import ArtifactError
from igq.formats import FORMATS, format_named
from igq.formats.drafts import check_seal
from igq.formats.pt2 import read_pt2
from igq.runtime import library_path
from tests.contracts.mutations import make

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reader:
    """Runs what a format wrote."""

    predict: Callable[[Path, Tensor], Tensor]
    refusals: tuple[type[Exception], ...]
    """The errors with which a damaged file may be refused."""
    tolerance: float
    """The largest difference of logits, as a share of their range."""


def run_onnx(path: Path, images: Tensor) -> Tensor:
    """Run an ONNX folder that is as it was sealed."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    check_seal(path)
    options = onnxruntime.SessionOptions()
    if (library := library_path()) is not None:
        options.register_custom_ops_library(str(library))
    elif is_igq(path):
        pytest.skip("the runtime is not built: `pip install .` with a C++ compiler")
    session = onnxruntime.InferenceSession(path / "model.onnx", options)
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def is_igq(path: Path) -> bool:
    return bool(json.loads((path / "manifest.json").read_text())["kind"] == "onnx-igq")


READERS: Mapping[str, Reader] = {
    "native": Reader(lambda path, images: igq.load(path).model(images), (ArtifactError,), 0.0),
    "onnx": Reader(run_onnx, (ArtifactError,), 1e-4),
    "onnx-igq": Reader(run_onnx, (ArtifactError,), 1e-4),
    "pt2": Reader(lambda path, images: read_pt2(path)(images), (ArtifactError,), 1e-4),
}
SUFFIXES = {".json", ".md", ".safetensors", ".onnx", ".pt2"}
CODE = (b"\x80", b"PK", b"#!", b"\x7fELF", b"MZ")
"""The beginnings of pickles, archives, scripts and programs."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return make(tmp_path_factory.mktemp("model") / "artifact", seed=0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def written(name: str, model: nn.Module, tmp_path: Path) -> Path:
    return format_named(name)(model, tmp_path / "model", {"seed": 3})


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def test_every_format_has_a_reader() -> None:
    assert READERS.keys() == FORMATS.keys()


@torch.inference_mode()
def test_it_predicts_as_the_model(
    name: str, written: Path, model: nn.Module, images: Tensor
) -> None:
    wanted, reader = model(images), READERS[name]
    found = reader.predict(written, images)
    assert found.shape == wanted.shape
    others = wanted.roll(1, dims=0)  # the check would see images in another order
    assert (others - wanted).abs().max() > 1000 * reader.tolerance * (wanted.max() - wanted.min())
    assert (found - wanted).abs().max() <= reader.tolerance * (wanted.max() - wanted.min())


@torch.inference_mode()
def test_it_is_the_same_when_it_is_written_again(
    name: str, written: Path, model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    again = format_named(name)(model, tmp_path / "again", {"seed": 3})
    predict = READERS[name].predict
    assert torch.equal(predict(again, images), predict(written, images))


def test_igq_names_a_format_that_it_does_not_read(name: str, written: Path) -> None:
    if name == "native":
        assert igq.load(written)
    else:
        with pytest.raises(ArtifactError, match=f"must be of the format native, but is {name};"):
            igq.load(written)


def contents_of(file: Path) -> Iterator[bytes]:
    """Yield what a file holds; of a program of torch, what its members hold but for tensors."""
    if file.suffix != ".pt2":
        yield file.read_bytes()
        return
    with zipfile.ZipFile(file) as archive:
        members = [m for m in archive.namelist() if "/data/weights/weight_" not in m]
        assert any(m.endswith("/models/model.json") for m in members)
        yield from map(archive.read, members)


def test_nothing_in_it_is_code(written: Path) -> None:
    for file in files_of(written):
        assert file.suffix in SUFFIXES
        assert not file.stat().st_mode & 0o111
        assert not any(content.startswith(CODE) for content in contents_of(file))


def test_it_leaves_nothing_beside_itself(written: Path) -> None:
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_a_path_that_exists_is_refused(name: str, written: Path, model: nn.Module) -> None:
    before = {file: file.read_bytes() for file in files_of(written)}
    with pytest.raises(ArtifactError, match="must not exist yet"):
        format_named(name)(model, written, {})
    assert {file: file.read_bytes() for file in files_of(written)} == before


def test_a_file_that_is_cut_is_refused(name: str, written: Path, images: Tensor) -> None:
    reader = READERS[name]
    for file in files_of(written):
        content = file.read_bytes()
        for share in (0, 0.3, 0.9):
            file.write_bytes(content[: int(share * len(content))])
            with pytest.raises(reader.refusals):
                reader.predict(written, images)
        file.write_bytes(content)


@torch.inference_mode()
def test_a_flipped_bit_is_refused_or_changes_nothing(
    name: str, written: Path, images: Tensor
) -> None:
    reader, draw = READERS[name], random.Random(0)
    wanted = reader.predict(written, images)
    for file in files_of(written):
        content = file.read_bytes()
        for _ in range(5):
            damaged, bit = bytearray(content), draw.randrange(8 * len(content))
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            try:
                assert torch.equal(reader.predict(written, images), wanted)
            except reader.refusals:
                continue
        file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_mutations_of_an_artifact_are_refused_or_change_nothing() -> None:
    """In a process of its own, whose memory is measured; tests/contracts/mutations.py says how.

    Where digests were computed again, another model may be what the files say: it loads and runs.
    """
    command = [sys.executable, "-m", "tests.contracts.mutations"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    damage, edits = json.loads(run.stdout).values()
    assert damage["odd"] == []
    assert damage["counts"].keys() == {"refused", "identical"}
    assert damage["counts"]["identical"] < 20  # bits and white space that mean nothing
    assert edits["counts"].keys() == {"refused", "identical", "different"}, edits["odd"]
    assert edits["counts"]["different"] < 30, edits["odd"]
    assert sum(damage["counts"].values()) + sum(edits["counts"].values()) >= 1000
    assert max(damage["peak_mib"], edits["peak_mib"]) < 2048
