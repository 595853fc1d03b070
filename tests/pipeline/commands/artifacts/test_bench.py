"""Every form that this machine has is measured at each size of batch, and the others are named."""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from igq import InvalidArgumentError
from igq.runtime import targets
from pipeline.cli import main
from pipeline.commands.artifacts import bench as module
from pipeline.commands.artifacts.bench import bench, processor
from tests.artifacts import digits_artifact

PLAIN = "torch, full precision"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, model: nn.Module) -> Path:
    return digits_artifact(tmp_path_factory.mktemp("bench") / "art", model)


@pytest.mark.slow
def test_every_form_is_measured_beside_fp32_onnx(artifact: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    before = torch.get_num_threads()
    found = bench(artifact, rounds=3, threads=1, batches=(1, 2), memory=False, without=[PLAIN])
    compiled = ["format onnx-igq"] if targets() else []
    onnx = ["fp32 ONNX", *compiled, "format onnx", "onnxruntime's int8 (dynamic)"]
    four_bits = ["onnxruntime's MatMulNBits, 4 bits"] if find_spec("onnx_ir") else []
    openvino = ["OpenVINO's int8"] if find_spec("openvino") and find_spec("nncf") else []
    torches = [
        "torch, fake-quantized",
        "torch, deployed on igq's runtime",
        "torch's int8 (dynamic)",
    ]
    names = [*torches, *onnx, *four_bits, *openvino]
    assert [(row.name, row.batch) for row in found.rows] == [
        (name, batch) for batch in (1, 2) for name in names
    ]
    assert (found.baseline, found.threads, found.rounds) == ("fp32 ONNX", 1, 3)
    assert [row.speed for row in found.rows if row.name == "fp32 ONNX"] == [1.0, 1.0]
    assert all(row.low <= row.milliseconds <= row.high for row in found.rows)
    assert len(found.missing) == 3 - len(compiled) - len(four_bits) - len(openvino)
    if not openvino:
        assert found.missing[-1].startswith("OpenVINO's int8: openvino")
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_peaks_are_those_of_a_process_for_each_form(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    others = ["torch, fake-quantized", "torch, deployed on igq's runtime", "torch's int8 (dynamic)"]
    found = bench(artifact, rounds=2, threads=1, batches=(2, 1), without=others)
    two, one = (row.peak_megabytes for row in found.rows)
    assert one is not None
    assert two is not None
    assert two >= one > 0


def test_without_onnx_it_says_what_to_install(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    found = bench(artifact, rounds=2, batches=(1,), memory=False)
    assert len(found.rows) == 4
    assert {row.peak_megabytes for row in found.rows} == {None}
    assert found.baseline == "torch, full precision"
    assert found.missing == (
        "ONNX: onnx and onnxruntime must be installed: pip install 'igq-vit[onnx]'",
    )


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"rounds": 1}, r"`rounds` must be at least 2, but got \[1\]"),
        ({"threads": 0}, r"`threads` must be at least 1, but got \[0\]"),
        ({"batches": (1, 0)}, r"`batches` must be at least 1, but got \[1, 0\]"),
    ],
)
def test_too_few_are_refused(given: dict[str, object], rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rule):
        bench("nowhere", **given)  # type: ignore[arg-type]


def test_the_command_prints_a_table_that_names_the_processor(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)

    def printed(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["igq", "bench", *map(str, (artifact, *words))])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    shown = printed("--rounds", 2, "--batch", 3, "--threads", 1, "--no-memory")
    assert processor() in shown
    assert re.search(r"torch, deployed on igq's runtime +3 ", shown)
    assert "threads: 1, medians of 2 rounds" in shown
    assert "Not measured: ONNX: onnx and onnxruntime must be installed" in shown
    few = ("--without", "torch, fake-quantized", "--no-memory")
    found = json.loads(printed("--rounds", 2, "--batch", 3, "--json", *few))
    assert [row["batch"] for row in found["rows"]] == [3, 3, 3]
