"""Every benchmark runs, at its smallest, on the demo's model and images."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from igq.runtime.library import library
from tests.processes import run_alone

ROOT = Path(__file__).resolve().parent.parent
SMALL = "--model digits --images 8 --groups 2 --bits 4"
COMMANDS = {
    "calibration": SMALL,
    "candidate_cost": "--models digits --images 8 --batch 8 --groups 2 --rounds 2",
    "changing_pool": "--trials 8 --seeds 1",
    "corrected_weights": SMALL,
    "correction_steps": f"{SMALL} --seeds 0 1 --steps 0 2",
    "decided": "--space demo --trials 10",
    "exhaustive": SMALL,
    "fidelity": f"{SMALL} --allocations 3",
    "final_round": "--seeds 1 --trials 6 --splits 1",
    "fit_gelu": "",
    "gpu_check": "--device cpu --small --models vit_tiny_patch16_224 --schemes best",
    "inputs": f"{SMALL} --rows 0 12",
    "latency": "--model demo --allocations 3 --rounds 3",
    "latency_budget": f"{SMALL} --rounds 3",
    "mixed_bits": f"{SMALL} --groups 8",
    "neighbours": "--trials 4 --workers 1",
    "onnx_standard": f"{SMALL} --rounds 2",
    "onnx_runtime": f"{SMALL} --rounds 2 --threads 1 --batches 1 3",
    "paper_allocation": "studies/demo --out paper",
    "reading": "--model digits --images 40 --workers 1 --rounds 1",
    "phases": "--models digits --images 8 --steps 2 --trials 2 --workers 1",
    "proposal_time": "--trials 20 --depth 2 --images 4",
    "scaling": "--workers 2 --seconds 0.01 --trials 60 --depth 2 --images 8 --each 3",
    "search_images": "--images 4 --passes 24 --seeds 1",
    "search_vs_plain": "--trials 3 --plain-trials 1 --validation-images 8",
    "sensitivities": SMALL,
    "tracking": "--trials 6 --depth 1",
    "tracking_share": "--rounds 1 --trials 2 --far 0 --trials-alone",
    "workers": "--models digits --trials 8 --images 8",
}
PARTS = {"__init__", "real", "plain", "gpu_agreement", "delayed"}


def test_every_benchmark_is_tried() -> None:
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert files - PARTS == set(COMMANDS)


LONG = {
    "changing_pool",
    "exhaustive",
    "neighbours",
    "phases",
    "search_images",
    "tracking_share",
    "workers",
}


def marked(name: str) -> pytest.MarkDecorator:
    if name in LONG:
        return pytest.mark.long
    return pytest.mark.ray if name == "search_vs_plain" else pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(n, marks=marked(n)) for n in COMMANDS])
def test_a_benchmark_runs_at_its_smallest(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name.startswith("onnx") and find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    if name.startswith("latency") and library() is None:
        pytest.skip("the runtime is not built")
    if "studies/demo" in COMMANDS[name]:
        (tmp_path / "studies").mkdir()
        (tmp_path / "studies" / "demo").symlink_to(request.getfixturevalue("demo_study"))
    output = run_alone(f"benchmarks.{name}", COMMANDS[name].split(), tmp_path)
    assert "torch" in output, "a benchmark names its machine"
