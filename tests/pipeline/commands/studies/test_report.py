"""The report of a study, as it is written to disk."""

from pathlib import Path

import pytest

from pipeline.commands.studies.report import report
from pipeline.errors import StudyError


@pytest.mark.slow
def test_a_study_s_report_lies_in_its_folder_unless_told_otherwise(
    demo_study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "both.html"
    assert report([demo_study, demo_study], out) == out
    assert out.stat().st_size < 5_000_000
    path = report([demo_study])
    assert path == demo_study / "report.html"
    text = path.read_text()
    path.unlink()
    for said in ("vit_tiny w4a2 uniform 2, seed 0", "Which layers matter?", "igq search demo"):
        assert said in text


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="none has none"):
        report([tmp_path / "none"])
    with pytest.raises(StudyError, match="at least one"):
        report([])
