"""Marks of tests, and the folder in which examples in docstrings run.

Examples of pipeline find a finished study in `studies/demo`.
"""

import atexit
import gc
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore = ["tests/fuzz/hunt.py"]  # it imports atheris
if not find_spec("onnx"):
    collect_ignore.append("igq/formats/onnx")
FEW = {"trials": 4, "rivals": False, "figures": False}


ALONE = {"faults", "long"}
NOT_FAST = {"slow", "ray", "gpu"} | ALONE


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests without a mark as fast; keep those of Ray in one process, and begin with them.

    Ray's tests share a cluster, measure how long things take, and take longest. Tests of faults and
    long ones run only where `-m` names them.
    """
    unasked = [mark for mark in ALONE if mark not in config.option.markexpr]
    left = [item for item in items if any(map(item.get_closest_marker, unasked))]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
    for item in items:
        if isinstance(item, pytest.DoctestItem) and _takes_a_study(item):
            item.add_marker("slow")
        marks = {mark.name for mark in item.iter_markers()}
        if not marks & NOT_FAST:
            item.add_marker("fast")
        if "ray" in marks:
            item.add_marker(pytest.mark.xdist_group("ray"))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


def pytest_configure() -> None:
    """Keep the garbage collector from looking at what is imported; all of it stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Let it look at what the tests make alone: a tenth of the time of the fast tests."""
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # libraries look for what they have left at the end


def _takes_a_study(item: pytest.DoctestItem) -> bool:
    sources = [example.source for example in item.dtest.examples]
    return any("studies/" in source or "pipeline.search(" in source for source in sources)


@pytest.fixture(scope="session")
def demo_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short search of the demo's space."""
    import pipeline  # after tests/conftest.py, which has shapes checked in whatever it imports
    from pipeline.study.progress import SilentDisplay
    from pipeline.study.request import Engine

    folder = tmp_path_factory.mktemp("studies") / "demo"
    tracking = pipeline.InMemoryTracker()
    pipeline.search(
        "demo", folder, tracking=tracking, display=SilentDisplay(), engine=Engine.EAGER, **FEW
    )
    return folder


@pytest.fixture(autouse=True)
def _a_new_folder_for_examples(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(request.node, pytest.DoctestItem):
        return
    monkeypatch.chdir(tmp_path)
    if _takes_a_study(request.node):
        shutil.copytree(request.getfixturevalue("demo_study"), tmp_path / "studies" / "demo")
