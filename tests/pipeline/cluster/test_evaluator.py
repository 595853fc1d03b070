"""A worker's messages: about half a second of work each, in order."""

from collections.abc import Iterator
from itertools import chain

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


def trial(
    clock: list[float], chunk_seconds: float, chunks: int = 8, number: int = 0
) -> Iterator[Report]:
    for chunk in range(chunks):
        clock[0] += chunk_seconds
        yield Report(number, chunk, Observation((1.0,)), clock[0] - 1000, chunk + 1 == chunks)


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


def test_short_trials_share_a_message(clock: list[float]) -> None:
    reports = chain.from_iterable(trial(clock, 0.03, number=number) for number in range(5))
    messages = [[report.number for report in message] for message in together(reports)]
    assert messages == [[0] * 8 + [1] * 8 + [2], [2] * 7 + [3] * 8 + [4] * 2, [4] * 6]


def test_the_error_of_a_single_trial_is_sent_at_once(clock: list[float]) -> None:
    failed = Report(0, 0, Observation(), 0.0, True, "MemoryError: no room")
    assert list(together(iter([failed]))) == [(failed,)]
