"""Latency of an exported model on this machine, beside full precision and other runtimes."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from igq import InvalidArgumentError, UnsupportedModelError, deploy, load
from igq.runtime import targets
from igq.vit import architecture, remake
from pipeline.evaluation.latency import Benchmark, Form, Latency, in_turns, latency
from pipeline.study.progress import Display, SilentDisplay

BATCHES = (1, 8)
LEAST_ROUNDS = 2
"""The rounds that quartiles need."""


def bench(
    artifact: str | Path,
    rounds: int = 50,
    threads: int | None = None,
    batches: Sequence[int] = BATCHES,
    display: Display | None = None,
) -> Benchmark:
    """Measure every form of an exported model in turns, in this process, on images of noise.

    The full-precision model has the artifact's architecture and new weights, on which latency does
    not depend. `threads` is by default as many as torch has.

    Raises:
        ArtifactError: there is no artifact, or it is damaged.
        InvalidArgumentError: `rounds`, `threads` or a size of batch is too small.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> measured = pipeline.bench(exported.path, rounds=2, batches=(1,))
    >>> measured.rows[0].name, measured.rounds
    ('torch, full precision', 2)
    """
    threads = torch.get_num_threads() if threads is None else threads
    least = {"rounds": (rounds, LEAST_ROUNDS), "threads": (threads, 1), "batches": (*batches, 1)}
    for name, (*given, most) in least.items():
        if min(given, default=0) < most:
            raise InvalidArgumentError(f"`{name}` must be at least {most}, but got {given}.")
    shown, before = display or SilentDisplay(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measured(Path(artifact), Path(folder), (rounds, threads), batches, shown)
    finally:
        torch.set_num_threads(before)


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


def _measured(
    artifact: Path, folder: Path, how: tuple[int, int], batches: Sequence[int], display: Display
) -> Benchmark:
    rounds, threads = how
    start = perf_counter()
    quantized: Any = load(artifact).model
    loaded = perf_counter() - start
    progress = display.step("writing every form")
    full = remake(architecture(quantized)).eval()
    forms, missing = _torch_forms(quantized, full, artifact, loaded)
    for form, reason in _onnx_forms(quantized, full, folder, threads):
        forms += [] if form is None else [form]
        missing += [reason] if reason else []
        progress(min(1.0, (len(forms) - 2) / 5))
    baseline = next((i for i, form in enumerate(forms) if form.name == "fp32 ONNX"), 0)
    shape = (quantized.patch_embed.proj.in_channels, *quantized.patch_embed.img_size)
    rows: list[Latency] = []
    for batch in batches:
        images = np.random.default_rng(0).standard_normal((batch, *shape), np.float32)
        progress = display.step(f"measuring batches of {batch}")
        times = in_turns(forms, images, rounds, progress)
        rows += [latency(f, batch, times[i], times[baseline]) for i, f in enumerate(forms)]
    target = next(iter(targets()), "")
    name = forms[baseline].name
    return Benchmark(tuple(rows), name, processor(), target, threads, rounds, tuple(missing))


def _torch_forms(
    quantized: nn.Module, full: nn.Module, artifact: Path, loaded: float
) -> tuple[list[Form], list[str]]:
    """Return the forms that run in torch, and why one of them is missing."""
    size = sum(file.stat().st_size for file in artifact.iterdir() if file.is_file()) / 1e6
    whole = sum(p.numel() * p.element_size() for p in full.parameters()) / 1e6
    forms = [
        Form("torch, full precision", _runner(full), whole, 0.0),
        Form("torch, fake-quantized", _runner(quantized), size, loaded),
    ]
    try:
        start = perf_counter()
        deployed = deploy(quantized)
        seconds = loaded + perf_counter() - start
        forms.append(Form("torch, deployed on igq's runtime", _runner(deployed), size, seconds))
    except UnsupportedModelError as error:
        return forms, [f"torch, deployed on igq's runtime: {error}"]
    return forms, []


def _onnx_forms(
    quantized: nn.Module, full: nn.Module, folder: Path, threads: int
) -> Iterator[tuple[Form | None, str]]:
    """Yield the forms that run in onnxruntime, or the reason where one does not."""
    lacking = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if lacking:
        yield None, f"ONNX: {' and '.join(lacking)} must be installed: pip install 'igq-vit[onnx]'"
        return
    from igq.formats.onnx.sessions import OPERATORS, forms, runner

    for form in forms(quantized, full, folder):
        if form.name == OPERATORS and not targets():
            yield None, f"{form.name}: igq's compiled runtime is not installed"
        elif form.file is None:
            yield None, f"{form.name}: {form.reason}"
        else:
            start = perf_counter()
            run = runner(form.file, threads)
            seconds = perf_counter() - start
            yield Form(form.name, run, form.file.stat().st_size / 1e6, seconds), ""


def _runner(model: nn.Module) -> Callable[[np.ndarray], Any]:
    def run(images: np.ndarray) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(images))

    return run
