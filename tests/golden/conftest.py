"""The golden studies, made again once for all tests."""

from pathlib import Path

import pytest

import pipeline
from tests.golden import make_mlflow_names
from tests.golden.make_study import NAMES, run_study


class Remade:
    """Golden studies that the code of today makes, each when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mlflow = make_mlflow_names.store(folder)
        """The store that has the study `groups`."""

    def __getitem__(self, name: str) -> Path:
        """Return the folder of a study."""
        path = self._folder / name
        if not path.exists():
            tracked = name == "groups"
            run_study(name, path, pipeline.MlflowTracker(self.mlflow) if tracked else None)
        return path


@pytest.fixture(scope="session")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Remade:
    return Remade(tmp_path_factory.mktemp("golden"))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
