"""Latency of an exported model on this machine, beside full precision and other runtimes."""

import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from igq import InvalidArgumentError, UnsupportedModelError, deploy, load
from igq.runtime import targets
from igq.threads import with_threads
from igq.vit import Architecture, architecture, remake
from pipeline.evaluation.latency import Benchmark, Form, Latency, Run, in_turns, latency, loaded
from pipeline.evaluation.memory import peak_memory
from pipeline.study.progress import Display, SilentDisplay

BATCHES = (1, 8)
LEAST_ROUNDS = 2
"""The rounds that quartiles need."""
_OF_TORCH = (
    "timm",
    "safetensors.torch",
    "igq.formats",
    "igq.runtime.deployment",
    "torch.ao.quantization",
)
"""Modules that loading a form of torch imports."""


def bench(
    artifact: str | Path,
    rounds: int = 50,
    threads: int | None = None,
    batches: Sequence[int] = BATCHES,
    memory: bool = True,
    without: Collection[str] = (),
    display: Display | None = None,
) -> Benchmark:
    """Measure every form of an exported model in turns, in this process, on images of noise.

    The full-precision model has the artifact's architecture and new weights, on which latency does
    not depend. `threads` is by default as many as torch has. With `memory` each form
    is loaded and run in a process of its own too, for its peak. Forms named in `without` are left
    out.

    Raises:
        ArtifactError: there is no artifact, or it is damaged.
        InvalidArgumentError: `rounds`, `threads` or a size of batch is too small.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> measured = pipeline.bench(exported.path, rounds=2, batches=(1,), memory=False)
    >>> measured.rows[0].name, measured.rounds
    ('torch, full precision', 2)
    """
    threads = torch.get_num_threads() if threads is None else threads
    least = {"rounds": (rounds, LEAST_ROUNDS), "threads": (threads, 1), "batches": (*batches, 1)}
    for name, (*given, most) in least.items():
        if min(given, default=0) < most:
            raise InvalidArgumentError(f"`{name}` must be at least {most}, but got {given}.")
    how, shown = _Effort(rounds, threads, batches, memory, without), display or SilentDisplay()
    with with_threads(threads), tempfile.TemporaryDirectory() as folder:
        return _measured(Path(artifact), Path(folder), how, shown)


def processor() -> str:
    """Return the name of this machine's processor, and its cores.

    >>> processor().endswith("cores")
    True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(named, "") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


@dataclass(frozen=True)
class _Effort:
    rounds: int
    threads: int
    batches: Sequence[int]
    memory: bool
    without: Collection[str]


def _measured(artifact: Path, folder: Path, how: _Effort, display: Display) -> Benchmark:
    quantized: Any = load(artifact).model
    progress = display.step("writing every form")
    forms, missing = _torch_forms(quantized, artifact, how)
    for form, reason in _onnx_forms(quantized, folder, how):
        forms += [] if form is None else [form]
        missing += [reason] if reason else []
        progress(min(1.0, (len(forms) + len(missing) - 4) / 6))
    baseline = next((i for i, form in enumerate(forms) if form.name == "fp32 ONNX"), 0)
    shape = (quantized.patch_embed.proj.in_channels, *quantized.patch_embed.img_size)
    draw = np.random.default_rng(0)
    images = {n: draw.standard_normal((n, *shape), np.float32) for n in sorted(how.batches)}
    peaks = _peaks(forms, images, display) if how.memory else {}
    rows: list[Latency] = []
    for batch in how.batches:
        progress = display.step(f"measuring batches of {batch}")
        times = in_turns(forms, images[batch], how.rounds, progress)
        for form, taken in zip(forms, times, strict=True):
            peak = peaks.get((form.name, batch))
            rows.append(latency(form, batch, taken, times[baseline], peak))
    target = next(iter(targets()), "")
    return Benchmark(
        tuple(rows),
        forms[baseline].name,
        processor(),
        target,
        how.threads,
        how.rounds,
        tuple(missing),
    )


def _peaks(
    forms: Sequence[Form], images: Mapping[int, np.ndarray], display: Display
) -> dict[tuple[str, int], float | None]:
    """Return each form's peak memory at each size of batch, in a process of its own."""
    progress = display.step("measuring the memory of every form")
    found: dict[tuple[str, int], float | None] = {}
    for number, form in enumerate(forms):
        if form.load is not None:
            peaks = peak_memory(form.load, list(images.values()), form.imports)
            found |= {(form.name, batch): peak for batch, peak in zip(images, peaks, strict=True)}
        progress((number + 1) / len(forms))
    return found


def _torch_forms(
    quantized: nn.Module, artifact: Path, how: _Effort
) -> tuple[list[Form], list[str]]:
    """Return the forms that run in torch, and why one of them is missing."""
    made, threads = architecture(quantized), how.threads
    size = sum(file.stat().st_size for file in artifact.iterdir() if file.is_file()) / 1e6
    whole = sum(p.numel() * p.element_size() for p in remake(made).parameters()) / 1e6
    makers: dict[str, tuple[Callable[[], Run], float | None]] = {
        "torch, full precision": (partial(_full, made, threads), whole),
        "torch, fake-quantized": (partial(_fake_quantized, artifact, threads), size),
        "torch, deployed on igq's runtime": (partial(_deployed, artifact, threads), size),
        "torch's int8 (dynamic)": (partial(_dynamic, made, threads), None),
    }
    forms, missing = [], []
    for name, (make, megabytes) in makers.items():
        if name in how.without:
            continue
        try:
            forms.append(loaded(name, make, megabytes, _OF_TORCH))
        except (UnsupportedModelError, RuntimeError, ImportError) as error:
            missing.append(f"{name}: {error}")
    return forms, missing


def _onnx_forms(
    quantized: nn.Module, folder: Path, how: _Effort
) -> Iterator[tuple[Form | None, str]]:
    """Yield the forms that run in onnxruntime and OpenVINO, or the reason where one does not."""
    lacking = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if lacking:
        yield None, f"ONNX: {' and '.join(lacking)} must be installed: pip install 'igq-vit[onnx]'"
        return
    from igq.formats.onnx.sessions import OPENVINO, OPERATORS, bytes_of, forms, runner

    full = remake(architecture(quantized)).eval()
    for form in forms(quantized, full, folder, how.without):
        if form.name == OPERATORS and not targets():
            yield None, f"{form.name}: igq's compiled runtime is not installed"
        elif form.file is None:
            yield None, f"{form.name}: {form.reason}"
        else:
            imports = ("openvino",) if form.name == OPENVINO else ()
            size = bytes_of(form.file) / 1e6
            yield loaded(form.name, partial(runner, form.file, how.threads), size, imports), ""


def _full(made: Architecture, threads: int) -> Run:
    return _runner(remake(made).eval(), threads)


def _fake_quantized(artifact: Path, threads: int) -> Run:
    return _runner(load(artifact).model, threads)


def _deployed(artifact: Path, threads: int) -> Run:
    return _runner(deploy(load(artifact).model), threads)


def _dynamic(made: Architecture, threads: int) -> Run:
    """Load torch's own int8: 8-bit weights of linear layers, one scale for a whole activation."""
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names packages that may replace it one day
        model = quantize_dynamic(remake(made).eval(), {nn.Linear}, dtype=torch.qint8)
    return _runner(model, threads)


def _runner(model: nn.Module, threads: int) -> Run:
    torch.set_num_threads(threads)

    def run(images: np.ndarray) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(images))

    return run
