"""The contract of study folders: a file that is not as it was written is never believed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import StudyError
from pipeline.study.folder import Folder
from tests.contracts.study_mutations import FEW, MUTATIONS, make, read, write_space
from tests.golden.make_study import run_igq

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_five_hundred_mutations_of_a_study_are_refused_or_change_nothing() -> None:
    """In a process of its own, whose memory is measured; `study_mutations` says how."""
    command = [sys.executable, "-m", "tests.contracts.study_mutations"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["odd"] == []
    assert found["counts"].keys() == {"refused", "identical"}
    assert found["counts"]["refused"] > 400
    assert sum(found["counts"].values()) == sum(MUTATIONS.values()) >= 500
    assert found["peak_mib"] < 2048


@pytest.mark.slow
class TestOneStudy:
    @pytest.fixture(scope="class")
    def home(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        home = tmp_path_factory.mktemp("studies")
        make(home / "good", write_space(home))
        return home

    @pytest.fixture
    def folder(self, home: Path, tmp_path: Path) -> Folder:
        shutil.copytree(home / "good", tmp_path / "study")
        return Folder(tmp_path / "study")

    def test_damaged_tables_and_weights_are_computed_again(
        self, home: Path, folder: Folder
    ) -> None:
        expected = read(folder.path)
        for path in folder.cache.iterdir():
            path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StudyError, match=r"cache.* must be as it was written"):
            read(folder.path)
        make(folder.path, home / "tiny.yaml", resume=True)
        assert read(folder.path) == expected

    def test_the_command_line_refuses_with_file_and_reason(
        self, folder: Folder, tmp_path: Path
    ) -> None:
        text = folder.journal.read_text()
        folder.journal.write_text(text.replace('"kls":[', '"kls":[0.0,', 1))
        code, printed = run_igq("export", folder.path, "--out", tmp_path / "artifact")
        assert code == 2
        assert "journal.log must be as it was written, but its content" in printed.replace(
            "\n", " "
        )
        assert "Traceback" not in printed

    def test_lines_of_a_trial_that_did_not_end_do_not_count(
        self, home: Path, folder: Folder
    ) -> None:
        expected = read(folder.path)
        kept = folder.journal.read_bytes()
        last = kept.splitlines(keepends=True)[-1]
        folder.journal.write_bytes(kept + last + last[:9])
        assert read(folder.path) == expected
        make(folder.path, home / "tiny.yaml", resume=True)
        assert read(folder.path) == expected
        assert folder.journal.read_bytes().startswith(kept)
        assert last + last not in folder.journal.read_bytes()

    def test_a_study_without_seals_opens_and_is_sealed_when_it_goes_on(
        self, home: Path, folder: Folder
    ) -> None:
        expected = read(folder.path)
        unseal(folder)
        assert read(folder.path)["trials"] == expected["trials"]
        make(folder.path, home / "tiny.yaml", resume=True)
        assert read(folder.path) == expected
        folder.result.write_text(folder.result.read_text().replace("0", "1", 1))
        with pytest.raises(StudyError, match=r"result\.json must be as it was written"):
            pipeline.open(folder.path)

    def test_the_result_of_another_end_of_the_same_study_is_refused(
        self, home: Path, folder: Folder
    ) -> None:
        kept = folder.final.read_bytes()
        space, more = home / "tiny.yaml", FEW["trials"] + 2
        request = pipeline.Request(
            pipeline.open(folder.path).study.space, folder.path, images="digits",
            weights=space.with_name("weights.safetensors"), trials=more, rivals=False,
            figures=False, resume=True,
        )  # fmt: skip
        pipeline.run(
            request,
            pipeline.InProcess(),
            pipeline.InMemoryTracker(),
            pipeline.study.progress.SilentDisplay(),
        )
        if folder.final.read_bytes() == kept:
            pytest.skip("two more trials changed nothing in the final round")
        folder.final.write_bytes(kept)
        with pytest.raises(StudyError, match=r"final\.json must be as it was written, but it is"):
            pipeline.open(folder.path)


def unseal(folder: Folder) -> None:
    """Make a study one of before: without schema, names, digests and seals."""
    folder.path.joinpath("journal.json").unlink()
    for path in folder.path.rglob("*.json"):
        content = json.loads(path.read_text())
        for part in ("schema", "id", "digest", "seal", "files"):
            content.pop(part, None)
        path.write_text(json.dumps(content))
