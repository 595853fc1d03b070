"""Make the golden studies: `python -m tests.golden.make_study [NAME ...]`, in the project's root.

A golden study records what a change of the code must not change. Each `studies/NAME.yaml` is a
search space; `studies/NAME/` is the study that one worker made of it on one thread, without Ray:

- `study.json` (without the machine's path of the weights), `result.json`, `final.json`,
  `validation.json`, and Optuna's journal, compressed;
- `cache_names.txt`, the names of all files of its cache, and those files that are small;
- `machine.json`, the processor and the versions that its numbers come from;
- `evaluated.json`, the numbers that `igq evaluate` prints of its exported best allocation.

A study is never overwritten. Where a change is meant to change the numbers, name it in CHANGELOG,
remove the folder of the study and make it again. All weights are the demo's.
"""

import gzip
import io
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # read by numpy and torch when they are imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import pipeline
import search_spaces
from igq.threads import with_threads
from pipeline.cli import main as igq_main
from pipeline.study.progress import SilentDisplay
from pipeline.study.request import Engine

STUDIES = Path(__file__).resolve().parent / "studies"
NAMES = ("front", "groups", "mixed")
JSON_FILES = ("study.json", "result.json", "final.json", "validation.json")
JOURNAL = "journal.log"
RECORDS = ("cache_names.txt", "machine.json", "evaluated.json")
BYTES = 200_000
"""The cache of a study is kept in git up to this size; whatever is left out is computed again."""
BY_PLACE = ("weights", "sources", "begun", "schema", "id", "digest")
"""Parts of a definition that tell of the machine, and of who wrote it."""
PACKAGES = ("torch", "timm", "numpy", "scipy", "scikit-learn", "optuna")
PROCESSOR = ("vendor_id", "cpu family", "model", "model name")


def weights() -> Path:
    """Return the file of the demo's weights, wherever the project keeps it."""
    path = search_spaces.load("demo").weights
    assert path is not None
    return path


def run_study(name: str, folder: Path, tracker: Any = None, **more: Any) -> None:
    """Run, or resume, a golden study in `folder`: the only code here that calls the search's API.

    Args:
        name: the study's name, which is also its space's.
        folder: the study's folder.
        tracker: a tracker of `pipeline`, in memory by default.
        more: other fields of the request, such as `trials` and `resume`.
    """
    request = pipeline.Request(
        search_spaces.load(STUDIES / f"{name}.yaml"),
        folder,
        weights=weights(),
        engine=Engine.EAGER,
        front=name == "front",
        **more,
    )
    tracker = tracker or pipeline.InMemoryTracker()
    with with_threads(1):
        pipeline.run(request, pipeline.InProcess(), tracker, SilentDisplay())


def run_igq(*arguments: object) -> tuple[int, str]:
    """Run the command line in this process; return its exit code and everything it printed."""
    printed = io.StringIO()
    with called_as("igq", *map(str, arguments)), redirect_stdout(printed), redirect_stderr(printed):
        try:
            igq_main()
        except SystemExit as ended:
            return int(ended.code or 0), printed.getvalue()
    return 0, printed.getvalue()


@contextmanager
def called_as(*words: str) -> Iterator[None]:
    """Pretend that this process was started by these words, and not by `python -m`."""
    main = sys.modules["__main__"]
    with mock.patch.object(sys, "argv", list(words)), mock.patch.object(main, "__package__", None):
        yield


def evaluated(artifact: Path) -> list[float]:
    """Evaluate an artifact on all digits; return the numbers printed, whatever the words are."""
    with with_threads(1):
        given = ("--images", "digits", "--weights", weights(), "--engine", "eager")
        code, printed = run_igq("evaluate", artifact, *given)
    assert code == 0, printed
    return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", printed)]


def exported(study: Path, artifact: Path, *more: object) -> None:
    """Export the best allocation of a study through the command line."""
    code, printed = run_igq("export", study, "--out", artifact, "--weights", weights(), *more)
    assert code == 0, printed


def machine() -> dict[str, str]:
    """Describe everything that floating-point results may depend on besides the code."""
    described = {
        "machine": platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() in PROCESSOR:
            described[name.strip()] = value.strip()
    return described | {package: version(package) for package in PACKAGES}


def definition(folder: Path) -> dict[str, Any]:
    """Read what a study is, without the paths of the machine that it was made on."""
    content = json.loads((folder / "study.json").read_text())
    return {key: value for key, value in content.items() if key not in BY_PLACE}


def cache_names(folder: Path) -> list[str]:
    """List the names of the files in a study's cache."""
    return sorted(path.name for path in (folder / "cache").iterdir())


def unpack(name: str, folder: Path) -> None:
    """Copy a golden study to `folder`, as the search left it."""
    shutil.copytree(STUDIES / name, folder, ignore=shutil.ignore_patterns(*RECORDS))
    packed = folder / f"{JOURNAL}.gz"
    (folder / JOURNAL).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()


def pack(made: Path, folder: Path) -> None:
    """Write what is kept of the study in `made` to the new golden folder."""
    (folder / "cache").mkdir(parents=True)
    for name in JSON_FILES:
        if (made / name).exists():
            shutil.copyfile(made / name, folder / name)
    study = json.loads((folder / "study.json").read_text())
    write_json(folder / "study.json", study | {"weights": Path(study["weights"]).name})
    journal = gzip.compress((made / JOURNAL).read_bytes(), mtime=0)
    (folder / f"{JOURNAL}.gz").write_bytes(journal)
    kept = 0
    for path in sorted((made / "cache").iterdir(), key=lambda path: path.stat().st_size):
        kept += path.stat().st_size
        if kept <= BYTES:
            shutil.copyfile(path, folder / "cache" / path.name)
    (folder / "cache_names.txt").write_text("".join(f"{name}\n" for name in cache_names(made)))


def write_json(path: Path, content: Any) -> None:
    """Write plain data, indented."""
    path.write_text(json.dumps(content, indent=1) + "\n")


def make(name: str) -> None:
    """Make one golden study.

    Raises:
        FileExistsError: the study is there already.
    """
    folder = STUDIES / name
    if folder.exists():
        raise FileExistsError(f"{folder} must not exist yet; remove it to make it again.")
    with tempfile.TemporaryDirectory() as temporary:
        made, artifact = Path(temporary) / name, Path(temporary) / "artifact"
        run_study(name, made)
        exported(made, artifact)
        pack(made, folder)
        write_json(folder / "evaluated.json", evaluated(artifact))
    write_json(folder / "machine.json", machine())


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        make(chosen)
        print(f"Wrote {STUDIES / chosen}.")
