"""The example of plain onnxruntime prints what torch predicts for the same image."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import igq
from igq.formats.onnx import write_onnx
from pipeline.data import Preprocessing

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "onnxruntime_standard.py"


@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 60), (60, 45), (53, 41)])
def test_it_prints_the_likeliest_classes(size: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1, "num_classes": 10})
    for parameter in vit.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape)
    candidates = igq.fit(igq.observe(vit, torch.randn(4, 3, 32, 32)), num_groups=(4,), bits=8)
    quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    write_onnx(quantized, tmp_path / "vit")
    pixels = np.random.default_rng(0).integers(0, 256, (*reversed(size), 3), np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    image.save(tmp_path / "image.png")

    command = [sys.executable, EXAMPLE, tmp_path / "vit", tmp_path / "image.png"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)

    x = Preprocessing.of(quantized).transform()(image)[None]
    odds, classes = quantized(x).softmax(-1)[0].topk(5)
    printed = [line.split() for line in run.stdout.splitlines()]
    assert [int(place) for place, _ in printed] == classes.tolist()
    assert [float(p) for _, p in printed] == pytest.approx(odds.tolist(), abs=0.02)
