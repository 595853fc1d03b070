"""The compiled library on each instruction set that this processor has."""

import os
from pathlib import Path

import pytest

from igq.runtime import library as module
from igq.runtime.library import TARGETS, library, targets

if folder := os.environ.get("IGQ_RUNTIME_FOLDER"):  # `make check-native`: a library with checks
    module._FOLDER = Path(folder)
    assert library() is not None, f"there is no library in {folder}"


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    if library() is None:
        pytest.skip("the runtime is not built: `pip install .` with a C++ compiler")
    if request.param not in targets():
        pytest.skip(f"this processor has no {request.param}")
    return str(request.param)
