"""A disk that is full at every stage: one message, a whole study, and a way on with room.

And one that is slow: a search on it takes longer, and is whole.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.searches import begin, check_sound


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a disk of our own cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    filler = disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1k"], capture_output=True)
    return filler


@pytest.mark.faults
@pytest.mark.parametrize(
    ("stage", "inside"),
    [(0, False), (1, False), (6, True), (15, False)],
    ids=["after 0", "after 1", "after 6, with MLflow", "after 15"],
)
def test_a_full_disk_ends_a_search_that_goes_on_with_room(
    disk: Path, space: Path, tmp_path: Path, stage: int, inside: bool
) -> None:
    store = (disk / "study" if inside else tmp_path) / "mlflow.db"
    local = ["--workers", "1", "--tracking", f"sqlite:///{store}"]
    folder = disk / "study"
    search = begin(space, folder, *local)
    if stage:
        search.reaches(stage)
    else:
        search.waits((folder / "study.json").exists, "study")
    filler = fill(disk)
    printed = search.ends(code=2)
    assert "No space left on device" in printed
    assert "Traceback" not in printed
    filler.unlink()
    again = begin(space, folder, *local, "--resume")
    again.ends()
    whose = "study and MLflow" if inside else "study"
    check_sound(again, f"disk of {whose} full after {stage} trials; resumed", store=store)


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    """An environment in which a disk takes 0.2 s to say that something stands on it."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("a slow disk wants a C compiler")
    source, library = Path(__file__).with_name("slow_disk.c"), tmp_path / "slow.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return {"LD_PRELOAD": str(library), "IGQ_SYNC_MS": "200"}


@pytest.mark.faults
def test_a_study_and_mlflow_on_a_slow_disk(
    space: Path, tmp_path: Path, slow: dict[str, str]
) -> None:
    search = begin(space, tmp_path / "study", "--workers", "1", **slow)
    search.ends()
    check_sound(search, "study and MLflow on a disk of 0.2 s a sync")
