"""A driver keeps its signals, terminal and folder while Ray starts in its process."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from pipeline.cluster.process import LONGEST_FOLDER, own_signals, quiet, short_folder


def test_the_handler_of_sigterm_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with own_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_written_past_python_is_noted_and_not_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []
    with quiet(said):
        os.write(2, b"AuthenticationError from C++\n")
    os.write(2, b"shown\n")
    assert said == ["AuthenticationError from C++\n"]
    assert capfd.readouterr().err == "shown\n"


def test_a_long_folder_for_temporary_files_gets_a_short_one_for_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "slurm" / ("job" * 20)
    long.mkdir(parents=True)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = short_folder()
    assert folder is not None
    assert len(folder) <= LONGEST_FOLDER
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert short_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    assert short_folder() == folder
