"""Models on igq's runtime in onnxruntime: time beside other ways to compute them, and agreement.

    python -m benchmarks.onnx_runtime --times-only --models deit_small_patch16_224
    python -m benchmarks.onnx_runtime --images 1000

Models for times have random weights; rows are those of `igq bench`. OpenVINO's is there where
openvino and nncf are installed. Agreement is measured on real weights and images; torch is compared
with itself on images moved by a millionth too, as rounding is chaotic.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

import igq
from benchmarks.real import SCHEMES, arguments_for, bench, load, logits_of, machine
from igq.evaluation import divergences
from igq.runtime import deploy, targets
from pipeline.commands.artifacts.bench import bench as measured_here
from pipeline.evaluation.latency import Latency


def main() -> None:
    """Print the tables."""
    parser = arguments_for(__doc__, 256)
    parser.add_argument("--models", nargs="*", help="of the times. [default: --model]")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=50)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--times-only", action="store_true")
    only.add_argument("--agreement-only", action="store_true")
    parser.add_argument("--without", nargs="*", default=(), help="names of forms to leave out")
    parser.add_argument("--memory", action="store_true", help="measure each form's peak too")
    options = parser.parse_args()
    print(f"{options.bits} bits, {options.groups} groups, {options.scheme}; {machine()}, "
          f"onnxruntime {onnxruntime.__version__}, {targets()[0]}\n")  # fmt: skip
    if not options.agreement_only:
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
    headings = "model", "threads", "batch", "", "MB", "loaded in s", "peak MB", "ms (quartiles)"
    print("| " + " | ".join((*headings, "times as fast as fp32 ONNX")) + " |\n" + "|---" * 9 + "|")
    for name in options.models or [options.model]:
        model = load(name) if name == "digits" else igq.create(name)
        patches: Any = model.patch_embed
        images = torch.randn(2, patches.proj.in_channels, *patches.img_size)
        with tempfile.TemporaryDirectory() as folder:
            artifact = igq.save(quantized_of(model, images, options), Path(folder) / "model")
            for threads in options.threads:
                how = options.batches, options.memory, options.without
                found = measured_here(artifact, options.rounds, threads, *how)
                for row in found.rows:
                    print(f"| {name} | {threads} | {row.batch} | {_cells(row)} |", flush=True)
                print("".join(f"not measured: {reason}\n" for reason in found.missing), end="")
    print()


def _cells(row: Latency) -> str:
    size = "" if row.megabytes is None else f"{row.megabytes:.2f}"
    peak = "" if row.peak_megabytes is None else f"{row.peak_megabytes:.0f}"
    times = f"{row.milliseconds:.1f} ({row.low:.1f} to {row.high:.1f})"
    return f"{row.name} | {size} | {row.load_seconds:.3f} | {peak} | {times} | {row.speed:.2f}"


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
    print("| | KL to full precision | of torch's | less torch's, paired | top-1 | same class |")
    print("|---" * 6 + "|")
    base = divergences(measured.reference, of_torch.log_softmax(-1))
    for name, logits in rows.items():
        kl = divergences(measured.reference, logits.log_softmax(-1))
        less = kl - base
        error = less.std() / len(less) ** 0.5
        top1 = (logits.argmax(-1) == measured.labels).float().mean()
        same = (logits.argmax(-1) == of_torch.argmax(-1)).float().mean()
        print(
            f"| {name} | {kl.mean():.4f} | {kl.mean() / base.mean():.3f} "
            f"| {less.mean():+.4f} ± {error:.4f} | {top1:.4f} | {same:.3f} |"
        )


if __name__ == "__main__":
    main()
