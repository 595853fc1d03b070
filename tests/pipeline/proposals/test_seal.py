"""The journal's seal: no more of a journal is read than counts, and none without limit."""

import os
from pathlib import Path

import pytest

from pipeline.errors import StudyError
from pipeline.proposals.seal import MOST_BYTES, JournalSeal, sealed_part, whole_lines
from pipeline.study.seals import write_definition

LINES = b'{"op_code":0}\n{"op_code":4}\n'


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A sealed journal of 64 GiB, most of them a hole behind the sealed part."""
    write_definition(tmp_path, "key", {}, "nonce")
    path = tmp_path / "journal.log"
    path.write_bytes(LINES)
    JournalSeal(path).renew()
    os.truncate(path, 64 << 30)
    return path


def test_the_sealed_part_is_read_alone(journal: Path) -> None:
    assert sealed_part(journal) == LINES


def test_a_journal_beyond_the_largest_is_refused_and_not_read(journal: Path) -> None:
    reason = rf"journal\.log must be as it was written, but it has {64 << 30} bytes, of at most"
    with pytest.raises(StudyError, match=f"{reason} {MOST_BYTES}: restore it"):
        whole_lines(journal)


def test_without_a_driver_at_work_the_lines_are_the_sealed_ones(journal: Path) -> None:
    os.truncate(journal, len(LINES))
    assert whole_lines(journal) == sealed_part(journal) == LINES
    os.truncate(journal, len(LINES) - 1)
    with pytest.raises(StudyError, match=f"it has {len(LINES) - 1} bytes of {len(LINES)}"):
        sealed_part(journal)
