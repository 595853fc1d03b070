"""Check and time a GPU: candidate cost, agreement with the CPU, time to switch quantizers.

    python -m benchmarks.gpu_check --device cuda --json OUT.json
    python -m benchmarks.gpu_check --device cpu --small

It needs torch, timm, scipy, safetensors and jaxtyping alone, and no network: weights are random.
A candidate (W4A4, 8 groups in every layer, computed as `fastest` says) and the compiled bfloat16
forward pass of timm's model take turns; times are medians over the rounds, of one batch that lies
on the device. With CUDA graphs both are measured once more without launches. Settings that do not
start within --seconds, or fail, are named.
"""

import argparse
import copy
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_agreement import (
    SMALL,
    SWIN,
    VITS,
    Made,
    agreement,
    make,
)
from benchmarks.real import SCHEMES
from igq.evaluation import divergences
from igq.quantized import fastest, set_quantizers

CALLS = 4
"""Passes between two readings of the clock on a GPU, as a search has several batches."""


@dataclass(frozen=True)
class Setting:
    """One row of the table of costs."""

    model: str
    scheme: str
    batch: int


@dataclass(frozen=True)
class Cost:
    """Measurements of one setting: milliseconds of a batch, MiB added by a pass."""

    model: str
    scheme: str
    batch: int
    bf16_ms: float
    candidate_ms: float
    ratio: float
    eager_ms: float
    bf16_graph_ms: float | None
    candidate_graph_ms: float | None
    bf16_mib: float | None
    candidate_mib: float | None
    switch_ms: float
    first_seconds: float
    """The candidate's first pass, with compiling."""
    frames: str
    """Frames that were compiled, of those that were tried."""
    kl_of_fast: float
    """KL from the candidate computed eagerly, in nats."""
    kl_of_quantization: float
    """KL from the full-precision model, in nats, to compare the other with."""
    kl_of_graph: float | None
    """KL of a graph's replay with quantizers loaded after its capture, from the compiled pass."""
    kl_of_switch: float | None
    """KL of the quantizers before, from the same: near the other, the graph has not followed."""


def main() -> None:
    """Print the tables, and write them as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default=_default_device())
    parser.add_argument("--small", action="store_true", help="rehearse: small models, few rounds")
    parser.add_argument("--seconds", type=float, default=140, help="start no setting later")
    parser.add_argument("--models", nargs="+", choices=(*VITS, SWIN), default=(*VITS, SWIN))
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=tuple(SCHEMES))
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    start = perf_counter()
    found: dict[str, Any] = {"machine": machine(options.device), "costs": [], "not_done": {}}
    print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    found["agreement"] = agreement(options.device, options.small)
    for name, values in found["agreement"].items():
        print(f"| {name} | " + ", ".join(f"{k} {v:.3g}" for k, v in values.items()) + " |")
    for setting in _settings(options.small):
        if setting.model not in options.models or setting.scheme not in options.schemes:
            continue
        _add(setting, found, options, perf_counter() - start)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
    print(f"{perf_counter() - start:.0f} s in all; not done: {found['not_done'] or 'nothing'}")


def _add(
    setting: Setting, found: dict[str, Any], options: argparse.Namespace, seconds: float
) -> None:
    """Measure a setting where there is time; note why it was not, and go on."""
    reason = f"{options.seconds:.0f} s were over"
    if seconds < options.seconds:
        try:
            found["costs"].append(asdict(cost(setting, options.device, options.small)))
            print(_row(found["costs"][-1], first=len(found["costs"]) == 1), flush=True)
            return
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    found["not_done"][f"{setting.model}, {setting.scheme}, batch {setting.batch}"] = reason


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _settings(small: bool) -> Iterator[Setting]:
    """List the settings, the most telling first."""
    if small:
        yield from (Setting(model, scheme, 2) for model in SMALL for scheme in SCHEMES)
        return
    yield from (Setting(model, "best", batch) for model in VITS for batch in (8, 64))
    yield Setting(SWIN, "best", 64)
    yield from (Setting(model, "paper", batch) for model in VITS for batch in (64, 8))
    rest = (("best", 8), ("paper", 64), ("paper", 8))
    yield from (Setting(SWIN, scheme, batch) for scheme, batch in rest)


def machine(device: str) -> dict[str, str]:
    """Return the device and the versions."""
    held = {"device": device, "torch": torch.__version__, "threads": str(torch.get_num_threads())}
    if device == "cuda":
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        held |= {"gpu": torch.cuda.get_device_name(), "driver": driver.strip()}
        held |= {"cuda": str(torch.version.cuda)}
    return held


def cost(setting: Setting, device: str, small: bool) -> Cost:
    """Measure one setting."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    arguments: dict[str, object] = dict(SMALL[setting.model]) if small else {}
    made = make(setting.model, setting.scheme, setting.batch, arguments)
    models = [
        _compiled(made.plain, device),
        made.candidate(device, 8, fastest(device)),
        made.candidate(device, 8),
    ]
    with torch.inference_mode():
        return _measured(setting, made, models, 3 if small else 20)


def _measured(setting: Setting, made: Made, models: list[nn.Module], rounds: int) -> Cost:
    bf16, fast, eager = models
    x = made.images.to(next(fast.parameters()).device)
    passes = [partial(bf16, x.bfloat16()), partial(fast, x)]
    first = _milliseconds(passes[1], x.device, 1) / 1000
    bf16_ms, candidate_ms = _times(passes, x.device, rounds)
    held = list(fast.modules())  # a graph reads the slots that it was captured with
    graphs = _captured(passes) if x.is_cuda else []
    graph_ms = _times([graph.replay for graph, _ in graphs], x.device, rounds)
    full = copy.deepcopy(made.plain).to(x.device)
    outputs = [module(x).float().log_softmax(-1).cpu() for module in (fast, eager, full)]
    bf16_graph_ms, candidate_graph_ms = graph_ms or (None, None)
    bf16_mib, candidate_mib = (_added_mib(run) if x.is_cuda else None for run in passes)
    follows = _following(fast, made, x, *graphs[1]) if graphs and held else (None, None)
    frames = torch._dynamo.utils.counters["frames"]
    return Cost(
        model=setting.model,
        scheme=setting.scheme,
        batch=setting.batch,
        bf16_ms=bf16_ms,
        candidate_ms=candidate_ms,
        ratio=candidate_ms / bf16_ms,
        eager_ms=_times([partial(eager, x)], x.device, 3)[0],
        bf16_graph_ms=bf16_graph_ms,
        candidate_graph_ms=candidate_graph_ms,
        bf16_mib=bf16_mib,
        candidate_mib=candidate_mib,
        switch_ms=_switch_ms(fast, made, x.device),
        first_seconds=first,
        frames=f"{frames['ok']}/{frames['total']}",
        kl_of_fast=divergences(outputs[1], outputs[0]).mean().item(),
        kl_of_quantization=divergences(outputs[2], outputs[1]).mean().item(),
        kl_of_graph=follows[0],
        kl_of_switch=follows[1],
    )


def _compiled(model: nn.Module, device: str) -> nn.Module:
    """Copy timm's model in bfloat16, its blocks compiled."""
    plain = copy.deepcopy(model).to(device, torch.bfloat16)
    for module in plain.modules():
        if hasattr(module, "attn"):
            module.compile(dynamic=False)
    return plain


def _times(
    passes: Sequence[Callable[[], object]], device: torch.device, rounds: int
) -> list[float]:
    """Return the median milliseconds of each, in alternating rounds after one that warms up."""
    calls = CALLS if device.type == "cuda" else 1
    rows = [[_milliseconds(run, device, calls) for run in passes] for _ in range(rounds + 1)]
    return [median(column) for column in zip(*rows[1:], strict=True)]


def _milliseconds(run: Callable[[], object], device: torch.device, calls: int) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    for _ in range(calls):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (perf_counter() - start) / calls


def _captured(
    passes: Sequence[Callable[[], Tensor]],
) -> list[tuple[torch.cuda.CUDAGraph, Tensor]]:
    """Capture passes that have run before: their graphs and what replays of them write, if any."""
    graphs = [(torch.cuda.CUDAGraph(), run) for run in passes]
    outputs = []
    try:
        for graph, run in graphs:
            with torch.cuda.graph(graph):
                outputs.append(run())
    except RuntimeError as error:
        print(f"no CUDA graphs: {error}")
        return []
    return [(graph, output) for (graph, _), output in zip(graphs, outputs, strict=True)]


def _following(
    model: nn.Module, made: Made, x: Tensor, graph: torch.cuda.CUDAGraph, output: Tensor
) -> tuple[float, float]:
    """Exchange the quantizers; return `kl_of_graph` and `kl_of_switch`."""
    graph.replay()
    before = output.clone()
    set_quantizers(model, made.chosen(4))
    graph.replay()
    expected, *rest = (y.float().log_softmax(-1) for y in (model(x), output, before))
    graph_kl, switch_kl = (divergences(expected, y).mean().item() for y in rest)
    return graph_kl, switch_kl


def _switch_ms(model: nn.Module, made: Made, device: torch.device) -> float:
    """Return the median milliseconds in which all quantizers are exchanged; 8 groups at the end."""
    chosen = [made.chosen(groups) for groups in (4, 8)]
    return median(_times([partial(set_quantizers, model, q) for q in chosen], device, 5))


def _added_mib(run: Callable[[], object]) -> float:
    """Return the most memory that a pass adds to what its models hold."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _row(values: dict[str, object], first: bool) -> str:
    """Return a row of the table, after its head where it is the first."""
    cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values.values()]
    head = f"| {' | '.join(values)} |\n{'|---' * len(values)}|\n" if first else ""
    return f"{head}| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
