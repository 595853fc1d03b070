"""The compiled library on each instruction set that this processor has."""

import pytest

from igq.runtime.library import TARGETS, library, targets


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    if library() is None:
        pytest.skip("the runtime is not built: `pip install .` with a C++ compiler")
    if request.param not in targets():
        pytest.skip(f"this processor has no {request.param}")
    return str(request.param)
