"""The examples of torch, of igq's operators in onnxruntime and of MLflow say what igq run says."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import igq
from igq.formats.pt2 import write_pt2
from igq.runtime import library_path
from pipeline.commands.artifacts.classify import Classified, classify
from pipeline.commands.artifacts.package import package
from tests.artifacts import digits_artifact
from tests.pipeline.conftest import make_model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDED = ("torch", "torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe",
          "typing_extensions", "filelock", "fsspec", "PIL", "igq")  # fmt: skip
"""Packages that `pip install torch pillow` brings, but for NVIDIA's, and igq."""


@pytest.fixture
def model() -> nn.Module:
    return make_model()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def printed(example: str, *words: Path) -> list[str]:
    command = [sys.executable, EXAMPLES / example, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def found(artifact: Path, image: Path) -> Classified:
    return next(classify(artifact, [image]))


@pytest.mark.slow
class TestExamples:
    def test_torch(self, tmp_path: Path, model: nn.Module, image: Path) -> None:
        path = digits_artifact(tmp_path / "art", model)
        best = found(path, image).guesses[0]
        (line,) = printed("torch_runtime.py", path, image)
        name, label, odds = line.rsplit(maxsplit=2)
        assert (name, int(label)) == (f"{image}:", best.label)
        assert float(odds) == pytest.approx(best.probability, abs=2e-3)

    @pytest.mark.skipif(library_path() is None, reason="the runtime is not compiled")
    def test_onnxruntime(self, tmp_path: Path, model: nn.Module, image: Path) -> None:
        pytest.importorskip("onnxruntime")
        onnx = pytest.importorskip("igq.formats.onnx")
        path = digits_artifact(tmp_path / "art", model)
        loaded = igq.load(path)
        onnx.write_onnx_igq(loaded.model, tmp_path / "onnx", loaded.notes)
        guesses = found(path, image).guesses
        lines = [line.split() for line in printed("onnxruntime_igq.py", tmp_path / "onnx", image)]
        assert [int(label) for label, _ in lines] == [guess.label for guess in guesses]
        odds = [guess.probability for guess in guesses]
        assert [float(p) for _, p in lines] == pytest.approx(odds, abs=2e-3)

    @pytest.mark.skipif(library_path() is None, reason="the runtime is not compiled")
    def test_torch_alone(self, tmp_path: Path, model: nn.Module, image: Path) -> None:
        """With torch, what torch itself needs, pillow and igq's files, but nothing else."""
        path = digits_artifact(tmp_path / "art", model)
        loaded = igq.load(path)
        write_pt2(loaded.model, tmp_path / "pt2", loaded.notes)
        (tmp_path / "bare").mkdir()
        for name in NEEDED:
            found_at = Path(importlib.import_module(name).__file__ or "")
            package = found_at.parent if found_at.name == "__init__.py" else found_at
            (tmp_path / "bare" / package.name).symlink_to(package)
        command = [sys.executable, "-S", EXAMPLES / "torch_program.py", tmp_path / "pt2", image]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "bare")}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        lines = [line.split() for line in run.stdout.splitlines()]
        guesses = found(path, image).guesses
        assert [int(label) for label, _ in lines] == [guess.label for guess in guesses]
        odds = [guess.probability for guess in guesses]
        assert [float(p) for _, p in lines] == pytest.approx(odds, abs=2e-3)

    def test_mlflow(self, tmp_path: Path, model: nn.Module, image: Path) -> None:
        path = digits_artifact(tmp_path / "art", model)
        best = found(path, image).guesses[0]
        lines = printed("mlflow_model.py", package(path, tmp_path / "model"), image)
        assert lines == [f"{image}: {best.name} ({best.label}) {best.probability:.3f}"]
