"""Latency tables as files, and the machine that they were measured on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from igq import ProfileError, Scheme
from igq.costs import Machine, Profile
from pipeline.preparation.costs import latency
from pipeline.preparation.costs.latency import elsewhere, read_profile, this_machine, write_profile

HERE = Profile("here", this_machine(2), "0.2.0", "tiny", Scheme.BEST, (), 0.5)


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    write_profile(HERE, tmp_path / "latency.json")
    assert read_profile(tmp_path / "latency.json") == HERE


def test_a_file_that_is_none_no_json_or_too_large_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latency.json"
    with pytest.raises(ProfileError, match=r"latency\.json is none: run igq profile"):
        read_profile(path)
    for damaged in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(ProfileError, match=r"latency\.json could not be read"):
            read_profile(path)
    path.write_text(json.dumps({"schema": 3}))
    with pytest.raises(ProfileError, match=r"latency\.json: `schema` of a latency table"):
        read_profile(path)
    monkeypatch.setattr(latency, "LARGEST", 4)
    with pytest.raises(ProfileError, match="must have at most 4 bytes"):
        read_profile(path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    write_profile(HERE, tmp_path / "latency.json")
    text = (tmp_path / "latency.json").read_text().replace("0.5", "NaN")
    (tmp_path / "latency.json").write_text(text)
    with pytest.raises(ProfileError, match="`rest_ms` must be a time from 0 ms up, but got nan"):
        read_profile(tmp_path / "latency.json")


def test_a_table_of_another_machine_is_told_with_both_names() -> None:
    assert elsewhere(HERE) is None
    there = replace(HERE, target="board", machine=Machine("Cortex-A76", "portable", 4))
    said = elsewhere(there)
    assert said is not None
    assert "on board (Cortex-A76, portable, 4 threads)" in said
    assert str(this_machine(4)) in said
