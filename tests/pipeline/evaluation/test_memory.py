"""Peak memory is that of a fresh process, less what it imports."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import memory
from pipeline.evaluation.memory import peak_memory

MEGABYTE = 10**6


def take(size: int) -> Callable[[np.ndarray], Any]:
    """Hold `size` bytes, and while running as many again as images have, ten times."""
    held = np.ones(size, np.uint8)
    return lambda images: held.sum() + np.repeat(images, 10).sum()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_it_counts_loading_and_each_batch() -> None:
    batches = [np.ones(size, np.uint8) for size in (1, 10 * MEGABYTE)]
    first, second = peak_memory(partial(take, 60 * MEGABYTE), batches)
    assert first is not None
    assert 45 < first < 90  # less what was freed before
    assert second is not None
    assert 90 < second - first < 250


def test_where_the_system_does_not_tell_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", memory._STATUS / "nothing")
    assert peak_memory(partial(take, 1), [np.ones(1), np.ones(1)]) == [None, None]
