"""The library as ARM computes, emulated: codes bit for bit, outputs but for rounding.

It needs Debian's packages g++-aarch64-linux-gnu and qemu-user, and is skipped without them.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igq.runtime import reference
from igq.runtime.panels import linear_panel
from tests.igq.runtime.layers import draw_attention, draw_layer

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SOURCES = Path(__file__).resolve().parents[3] / "igq" / "runtime" / "src"
OPTIONS = ("-std=c++17", "-O2", "-ffp-contract=off", "-fno-math-errno", "-DIGQ_ARM", "-w")
KERNELS = {"portable": (), "arm_i8mm": ("-march=armv8.2-a+i8mm",)}
SEEDS = range(25)
QUANTIZE, LINEAR, ATTENTION = range(3)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None,
        reason=f"{COMPILER} or {EMULATOR} is not installed",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with both kernels, and `elsewhere.cpp`, compiled for ARM."""
    folder = tmp_path_factory.mktemp("arm")
    parts = []
    for name, options in KERNELS.items():
        parts.append(folder / f"{name}.o")
        command = [COMPILER, *OPTIONS, *options, f"-DIGQ_TARGET={name}", "-c"]
        subprocess.run([*command, SOURCES / "kernels.cpp", "-o", parts[-1]], check=True)
    others = [
        SOURCES / "runtime.cpp",
        SOURCES / "panel.cpp",
        Path(__file__).parent / "elsewhere.cpp",
    ]
    made = folder / "elsewhere"
    command = [COMPILER, *OPTIONS, "-static", "-pthread", *others, *parts, "-o", made]
    subprocess.run(command, check=True)
    return made


def call(
    which: int, panel: Tensor, x: Tensor, outputs: int, residual: Tensor | None = None
) -> bytes:
    added = b"" if residual is None else residual.numpy().tobytes()
    sizes = (panel.numel(), len(x), x.shape[1], x.shape[2], outputs, x.numel(), len(added) // 4)
    header = np.array([which, *sizes], np.int64).tobytes()
    return header + panel.numpy().tobytes() + x.contiguous().numpy().tobytes() + added


def computed(
    program: Path, target: str, calls: list[bytes], shapes: list[torch.Size]
) -> list[Tensor]:
    """Return what the emulated library computes for each call."""
    command = [EMULATOR, "-cpu", "max", program, target]
    run = subprocess.run(command, input=b"".join(calls), capture_output=True, check=True)
    made = torch.from_numpy(np.frombuffer(run.stdout, np.float32).copy())
    parts = made.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@pytest.mark.parametrize("target", KERNELS)
class TestArm:
    def test_codes_are_torch_s(self, program: Path, target: str) -> None:
        drawn = [draw_layer(seed) for seed in SEEDS]
        calls = [call(QUANTIZE, linear_panel(d.layer), d.x, d.x.shape[-1]) for d in drawn]
        made = computed(program, target, calls, [d.x.shape for d in drawn])
        for values, d in zip(made, drawn, strict=True):
            assert torch.equal(values, d.layer.quantizer(d.seen))

    def test_outputs_are_those_of_exact_sums(self, program: Path, target: str) -> None:
        drawn = [draw_layer(seed) for seed in SEEDS]
        wide = [len(d.layer.weight.codes) for d in drawn]
        calls = [
            call(LINEAR, linear_panel(d.layer), d.x, outputs, d.residual)
            for d, outputs in zip(drawn, wide, strict=True)
        ]
        shapes = [torch.Size([*d.x.shape[:-1], n]) for d, n in zip(drawn, wide, strict=True)]
        for y, d in zip(computed(program, target, calls, shapes), drawn, strict=True):
            bias = None if d.layer.bias is None else d.layer.bias.double()
            weight = d.layer.weight.dequantize().double()
            exact = F.linear(d.layer.quantizer(d.seen).double(), weight, bias)
            exact = F.gelu(exact) if d.layer.gelu else exact
            exact = exact if d.residual is None else exact + d.residual
            assert (y - exact).abs().max() <= 3e-6 * exact.abs().max()

    def test_attention_is_torch_s(self, program: Path, target: str) -> None:
        drawn = [draw_attention(seed) for seed in SEEDS]
        calls = [call(ATTENTION, d.panel, d.qkv, d.qkv.shape[-1] // 3) for d in drawn]
        shapes = [torch.Size([*d.qkv.shape[:-1], d.qkv.shape[-1] // 3]) for d in drawn]
        for y, d in zip(computed(program, target, calls, shapes), drawn, strict=True):
            expected = reference.self_attention(d.qkv, d.panel)
            apart = (y - expected).abs() / expected.abs().max()
            assert (apart > 1e-5).float().mean() < 0.05  # codes on a border move values
