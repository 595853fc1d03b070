"""Files of a study appear whole or not at all."""

import stat
from pathlib import Path

import pytest

from pipeline.errors import StudyError
from pipeline.files import read_json, write_json


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "study.json"
    write_json(path, {"a": [1, 2.5, None, "b"]})
    assert read_json(path) == {"a": [1, 2.5, None, "b"]}


def test_only_the_file_itself_stays(tmp_path: Path) -> None:
    for content in (1, 2):
        write_json(tmp_path / "study.json", content)
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]
    assert read_json(tmp_path / "study.json") == 2


def test_what_json_cannot_hold_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", "old")
    with pytest.raises(TypeError):
        write_json(tmp_path / "study.json", {"new": object()})
    assert read_json(tmp_path / "study.json") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_others_may_read_it_as_they_may_any_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    write_json(tmp_path / "study.json", 1)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"^/.*/file/study must be writable, but is not: "):
        write_json(tmp_path / "file" / "study" / "study.json", 1)


def test_a_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=f"^a study must hold study.json, but {tmp_path} has none"):
        read_json(tmp_path / "study.json")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"], ids=["not JSON", "not text"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.json").write_bytes(content)
    with pytest.raises(StudyError, match=r"study\.json could not be read: "):
        read_json(tmp_path / "study.json")
