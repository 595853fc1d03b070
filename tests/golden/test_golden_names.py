"""Names that people rely on: in MLflow, and of commands and options."""

import json
from difflib import unified_diff

import pytest

from tests.golden.conftest import Remade
from tests.golden.make_help import HELP, file_names, help_of
from tests.golden.make_mlflow_names import NAMES, names_in

pytestmark = pytest.mark.xdist_group("golden")  # one process makes the studies again


@pytest.mark.slow
def test_mlflow_shows_the_same_names(remade: Remade) -> None:
    assert remade["groups"].exists()  # made, and so tracked
    assert names_in(remade.mlflow) == json.loads(NAMES.read_text())


def test_the_help_of_every_command_is_recorded() -> None:
    assert sorted(path.name for path in HELP.iterdir()) == sorted(file_names())


@pytest.mark.parametrize("file", sorted(path.name for path in HELP.iterdir()))
def test_help_says_the_same(file: str) -> None:
    recorded = (HELP / file).read_text().splitlines()
    found = help_of(*file_names()[file]).splitlines()
    changed = "\n".join(unified_diff(recorded, found, "recorded", "found", lineterm=""))
    assert not changed, f"record with `python -m tests.golden.make_help`:\n{changed}"
