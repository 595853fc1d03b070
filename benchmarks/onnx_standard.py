"""A quantized model in standard ONNX operators: size, time and agreement.

    python -m benchmarks.onnx_standard
    python -m benchmarks.onnx_standard --scheme paper --images 1000

Both models run in onnxruntime in turns, batch 1: full precision, in the same operators without
quantizers, and the quantized one as it is and with its weights made floating point while loading
(`session.disable_quant_qdq`). Predictions are compared with torch's, and torch's with its own on
images moved by a millionth: rounding is chaotic, so no implementation is nearer than that.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

import igq
from benchmarks.real import BATCH, Bench, arguments_for, bench, logits_of, machine
from igq.evaluation import divergences
from igq.formats.onnx import write_onnx
from igq.formats.onnx.plain import plain_graph
from igq.formats.onnx.verification import differences
from igq.quantized import with_slots


def main() -> None:
    """Print the tables."""
    parser = arguments_for(__doc__, 256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    measured = bench(options)
    scheme = igq.Scheme.BEST if options.scheme == "best" else igq.Scheme.PAPER
    candidates = igq.fit(
        igq.observe(measured.model, measured.calibration, scheme), (options.groups,), options.bits
    )
    allocation = igq.uniform(candidates.layers, options.groups)
    quantized = igq.quantize(measured.model, candidates.select(allocation), options.bits)
    full = plain_graph(with_slots(measured.model, lambda layer: nn.Identity())).model()
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        path = write_onnx(quantized, Path(folder) / "vit") / "model.onnx"
        seconds = perf_counter() - start
        written = path.read_bytes()
    print(f"{options.model}, {options.bits} bits, {options.groups} groups, {options.scheme}; "
          f"{machine()}, onnxruntime {onnxruntime.__version__}\n")  # fmt: skip
    _print_file(written, full.SerializeToString(), seconds)
    _print_latency(_sessions(written, full.SerializeToString(), options.threads), measured, options)
    _print_agreement(written, quantized, measured)


def _print_file(written: bytes, full: bytes, seconds: float) -> None:
    import onnx

    nodes = len(onnx.load_from_string(written).graph.node)
    print("| nodes | seconds to write | MB | of fp32 ONNX |\n" + "|---" * 4 + "|")
    print(
        f"| {nodes} | {seconds:.1f} | {len(written) / 1e6:.2f} | {len(written) / len(full):.3f} |\n"
    )


def _sessions(written: bytes, full: bytes, threads: int) -> Mapping[str, Any]:
    """Return name -> session: full precision, quantized, quantized with weights made float."""

    def made(model: bytes, disable_qdq: str = "0") -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.disable_quant_qdq", disable_qdq)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    return {
        "fp32 ONNX": made(full),
        "quantized": made(written),
        "quantized, weights made float": made(written, "1"),
    }


def _print_latency(
    sessions: Mapping[str, Any], measured: Bench, options: argparse.Namespace
) -> None:
    image = {"images": measured.images[:1].numpy()}
    for session in sessions.values():
        session.run(None, image)
    rounds = [[_seconds(s, image) for s in sessions.values()] for _ in range(options.rounds)]
    print(f"batch 1, threads {options.threads}, {options.rounds} rounds in turns\n")
    print("| | ms | of fp32 ONNX (quartiles) |\n|---|---|---|")
    for place, name in enumerate(sessions):
        low, middle, high = quantiles([row[place] / row[0] for row in rounds], n=4)
        milliseconds = 1e3 * median(row[place] for row in rounds)
        print(f"| {name} | {milliseconds:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    print()


def _seconds(session: Any, inputs: Mapping[str, Any]) -> float:
    start = perf_counter()
    session.run(None, inputs)
    return perf_counter() - start


def _print_agreement(written: bytes, quantized: nn.Module, measured: Bench) -> None:
    import onnx

    images = measured.images
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    of_torch, moved = logits_of(quantized, images), logits_of(quantized, images + 1e-6 * noise)
    session = _sessions(written, written, 1)["quantized"]
    outputs = [session.run(None, {"images": b.numpy()})[0] for b in images.split(BATCH)]
    spread = (of_torch.max() - of_torch.min()).item()
    print("| | KL to full precision | top-1 | same class as torch | logits' difference, mean, "
          "root mean square and greatest, of their range |\n|---|---|---|---|---|")  # fmt: skip
    rows = {
        "torch": of_torch,
        "torch, images moved by 1e-6": moved,
        "onnxruntime": torch.from_numpy(np.concatenate(outputs)),
    }
    for name, logits in rows.items():
        kl = divergences(measured.reference, logits.log_softmax(-1)).mean()
        top1 = (logits.argmax(-1) == measured.labels).float().mean()
        same = (logits.argmax(-1) == of_torch.argmax(-1)).float().mean()
        off = (logits - of_torch).abs() / spread
        rms = off.square().mean().sqrt()
        print(f"| {name} | {kl:.4f} | {top1:.3f} | {same:.3f} "
              f"| {off.mean():.5f}, {rms:.5f}, {off.max():.5f} |")  # fmt: skip
    found = differences(onnx.load_from_string(written), quantized, images[:2])
    for kind, is_kind in (("linear layers", False), ("stages", True)):
        shares = [value for name, value in found.items() if name.startswith("stage ") is is_kind]
        print(f"\n{kind} on their own input: median {median(shares):.1e}, worst {max(shares):.1e}")


if __name__ == "__main__":
    main()
