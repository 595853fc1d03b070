"""The doctor says what a machine has, and what is amiss."""

import json
import os
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands.machine import doctor
from pipeline.commands.machine.doctor import Finding, diagnose


def found(name: str, findings: list[Finding]) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_the_versions_are_those_that_are_installed(tmp_path: Path) -> None:
    import torch

    assert found("torch", diagnose(tmp_path)).said == torch.__version__.partition("+")[0] or (
        found("torch", diagnose(tmp_path)).said == torch.__version__
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_amiss(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not found("studies", diagnose(tmp_path / "new")).good


def test_a_file_in_the_place_of_a_folder_is_amiss(tmp_path: Path) -> None:
    (tmp_path / "studies").touch()
    finding = found("studies", diagnose(tmp_path / "studies"))
    assert (finding.good, finding.said.endswith("cannot be written: choose another --out")) == (
        False,
        True,
    )


def test_without_a_compiler_it_says_what_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found("compiler", diagnose(tmp_path)).said == (
        "none: --engine compiled needs a C++ compiler"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "host:port"])
def test_a_cluster_that_does_not_answer_is_amiss(tmp_path: Path, address: str) -> None:
    assert not found("cluster", diagnose(tmp_path, address)).good


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    diagnose(tmp_path / "studies")
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_json_and_exits_with_1_where_something_is_amiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["igq", "doctor", "--out", str(tmp_path), "--cluster", "127.0.0.1:1", "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    amiss = [row["name"] for row in json.loads(capsys.readouterr().out) if not row["good"]]
    assert "cluster" in amiss


def test_a_runtime_that_is_not_compiled_is_amiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "targets", lambda: ("avx2", "portable"))
    assert found("runtime", diagnose(tmp_path)).said == "compiled, with avx2, portable"
    monkeypatch.setattr(doctor, "targets", tuple)
    finding = found("runtime", diagnose(tmp_path))
    assert not finding.good
    assert "pip install ." in finding.said
