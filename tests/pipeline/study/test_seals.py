"""Seals: of a file that was written beside others, what is wrong with those is named first."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StudyError
from pipeline.study.seals import check_companions, companions, write_definition, write_sealed


@pytest.fixture
def result(tmp_path: Path) -> Path:
    write_definition(tmp_path, "key", {}, "nonce")
    write_sealed(tmp_path / "result.json", {"best": 3})
    return tmp_path / "result.json"


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: os.truncate(path, 20), "could not be read: result.json: it must be JSON"),
        (lambda path: os.truncate(path, 64 << 30), "it must have at most 268435456 bytes"),
        (lambda path: path.unlink(), "a study must hold result.json, but"),
        (replace_by_fifo, "it must be a file, but is none"),
        (
            lambda path: path.write_text(path.read_text().replace("3", "4", 1)),
            "its content is not that of its digest",
        ),
        (
            lambda path: write_sealed(path, {"best": 4}),
            "it is not the one that validation.json was written with",
        ),
    ],
    ids=["cut", "too-large", "gone", "no-file", "edited", "another"],
)
def test_the_reason_is_the_file_s_own(
    damage: Callable[[Path], None], reason: str, result: Path
) -> None:
    noted = companions([result])
    check_companions(result.with_name("validation.json"), noted)
    damage(result)
    with pytest.raises(StudyError) as raised:
        check_companions(result.with_name("validation.json"), noted)
    assert reason in str(raised.value)


def test_a_file_that_was_added_is_refused(result: Path) -> None:
    noted = companions([result, result.with_name("final.json")])
    assert noted["final.json"] is None
    check_companions(result.with_name("validation.json"), noted)
    write_sealed(result.with_name("final.json"), {})
    with pytest.raises(StudyError, match=r"final\.json .* there was none when validation\.json"):
        check_companions(result.with_name("validation.json"), noted)
