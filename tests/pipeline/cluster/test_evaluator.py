"""A worker's messages: about half a second of work each, in order."""

from collections.abc import Iterator

import pytest

from igq import Observation
from pipeline.cluster import evaluator
from pipeline.cluster.evaluator import Report, together


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(evaluator, "perf_counter", lambda: now[0])
    return now


def trial(clock: list[float], chunk_seconds: float, chunks: int = 8) -> Iterator[Report]:
    for chunk in range(chunks):
        clock[0] += chunk_seconds
        yield Report(chunk, Observation((1.0,)), clock[0] - 1000, chunk + 1 == chunks)


@pytest.mark.parametrize(
    ("chunk_seconds", "sizes"),
    [(0.01, [8]), (0.2, [3, 3, 2]), (0.5, [1] * 8), (9.0, [1] * 8)],
)
def test_a_message_is_sent_after_half_a_second(
    clock: list[float], chunk_seconds: float, sizes: list[int]
) -> None:
    messages = list(together(trial(clock, chunk_seconds)))
    assert [len(message) for message in messages] == sizes
    assert [report.chunk for message in messages for report in message] == list(range(8))


def test_the_wait_for_an_answer_is_no_work(clock: list[float]) -> None:
    messages = together(trial(clock, 0.2))
    sizes = []
    for message in messages:
        sizes.append(len(message))
        clock[0] += 60.0  # the driver is busy
    assert sizes == [3, 3, 2]


def test_an_error_is_sent_at_once(clock: list[float]) -> None:
    failed = Report(0, Observation(), 0.0, True, "MemoryError: no room")
    assert list(together(iter([failed]))) == [(failed,)]
