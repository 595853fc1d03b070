"""Models on igq's runtime in onnxruntime: time beside other ways to compute them, and agreement.

    python -m benchmarks.onnx_runtime --times-only --models deit_small_patch16_224
    python -m benchmarks.onnx_runtime --images 1000

Models for times have random weights. They run in turns in one process: full precision, igq's
operators, and onnxruntime's own int8 (`quantize_dynamic`: one scale for a whole activation).
Agreement is measured on real weights and images; torch is compared with itself on images moved by a
millionth too, as rounding is chaotic.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

import igq
from benchmarks.real import SCHEMES, arguments_for, bench, load, logits_of, machine
from igq.evaluation import divergences
from igq.formats.onnx.operators import onnx_with_operators
from igq.formats.onnx.plain import plain_graph
from igq.quantized import with_slots
from igq.runtime import deploy, library_path, targets


def main() -> None:
    """Print the tables."""
    parser = arguments_for(__doc__, 256)
    parser.add_argument("--models", nargs="*", help="of the times. [default: --model]")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--times-only", action="store_true")
    options = parser.parse_args()
    print(f"{options.bits} bits, {options.groups} groups, {options.scheme}; {machine()}, "
          f"onnxruntime {onnxruntime.__version__}, {targets()[0]}\n")  # fmt: skip
    _print_times(options)
    if not options.times_only:
        _print_agreement(options)


def quantized_of(model: nn.Module, images: Tensor, options: argparse.Namespace) -> nn.Module:
    """Return the model quantized to the options' bits, in as many groups everywhere."""
    ranges = igq.observe(model, images, SCHEMES[options.scheme])
    candidates = igq.fit(ranges, (options.groups,), options.bits)
    chosen = candidates.select(igq.uniform(candidates.layers, options.groups))
    return igq.quantize(model, chosen, options.bits)


def _print_times(options: argparse.Namespace) -> None:
    print(
        "| model | threads | batch | | MB | loaded in s | ms | times as fast as fp32 (quartiles) |"
    )
    print("|---" * 8 + "|")
    for name in options.models or [options.model]:
        model = load(name) if name == "digits" else igq.create(name)
        patches: Any = model.patch_embed
        shape = (max(options.batches), patches.proj.in_channels, *patches.img_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as folder:
            files = dict(_files(model, quantized_of(model, images[:2], options), Path(folder)))
            for threads in options.threads:
                for batch in options.batches:
                    rows = _rows(files, images[:batch], threads, options.rounds)
                    for row in rows:
                        print(f"| {name} | {threads} | {batch} | {row} |", flush=True)
    print()


def _files(model: nn.Module, quantized: nn.Module, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the model in each way; yield its name and file."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    full, ours, int8 = (folder / f"{name}.onnx" for name in ("full", "ours", "int8"))
    onnx.save(plain_graph(with_slots(model, lambda layer: nn.Identity())).model(), full)
    onnx.save(onnx_with_operators(quantized), ours)
    quantize_dynamic(full, int8, weight_type=QuantType.QUInt8, per_channel=False)
    yield from (("fp32", full), ("igq", ours), ("onnxruntime's int8", int8))


def _rows(files: Mapping[str, Path], images: Tensor, threads: int, rounds: int) -> Iterator[str]:
    """Yield a row for each file: size, seconds to load, milliseconds, and how much faster."""
    sessions, loading = {}, {}
    for name, path in files.items():
        start = perf_counter()
        sessions[name] = _session(path, threads)
        loading[name] = perf_counter() - start
    given = {"images": images.numpy()}
    for session in sessions.values():
        session.run(None, given)
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, session in sessions.items():
            start = perf_counter()
            session.run(None, given)
            times[name].append(perf_counter() - start)
    for name, path in files.items():
        faster = [one / other for one, other in zip(times["fp32"], times[name], strict=True)]
        low, middle, high = quantiles(faster, n=4)
        size, ms = path.stat().st_size / 1e6, 1e3 * quantiles(times[name], n=4)[1]
        yield (f"{name} | {size:.2f} | {loading[name]:.3f} | {ms:.1f} "
               f"| {middle:.2f} ({low:.2f} to {high:.2f})")  # fmt: skip


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # sessions take turns
    options.register_custom_ops_library(str(library_path()))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _print_agreement(options: argparse.Namespace) -> None:
    measured = bench(options)
    quantized = quantized_of(measured.model, measured.calibration, options)
    images = measured.images
    moved = images + 1e-6 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    of_torch = logits_of(quantized, images)
    rows = {
        "torch": of_torch,
        "torch, images moved by 1e-6": logits_of(quantized, moved),
        "igq's runtime": logits_of(deploy(quantized), images),
    }
    print(f"{options.model}, {len(images)} images\n")
    print(
        "| | KL to full precision | of torch's | top-1 | same class as torch |\n" + "|---" * 5 + "|"
    )
    base = divergences(measured.reference, of_torch.log_softmax(-1)).mean()
    for name, logits in rows.items():
        kl = divergences(measured.reference, logits.log_softmax(-1)).mean()
        top1 = (logits.argmax(-1) == measured.labels).float().mean()
        same = (logits.argmax(-1) == of_torch.argmax(-1)).float().mean()
        print(f"| {name} | {kl:.4f} | {kl / base:.3f} | {top1:.4f} | {same:.3f} |")


if __name__ == "__main__":
    main()
