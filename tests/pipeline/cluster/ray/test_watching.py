"""The watch on a cluster: its answers never wait for a head that is gone."""

import threading
import time

import pytest

from pipeline.cluster.ray import watching
from pipeline.errors import ClusterError


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A head that can go away; looked at a hundred times a second."""
    state = {"gone": False}

    def check() -> None:
        if state["gone"]:
            raise ClusterError("the head of a cluster must stay while a search runs")

    monkeypatch.setattr(watching, "check_head", check)
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "STALE_SECONDS", 0.1)
    return state


def until_raised(watch: watching.Watch) -> float:
    """Ask for the room until that fails; return the longest time that an answer took."""
    longest, end = 0.0, time.monotonic() + 20
    while time.monotonic() < end:
        asked = time.monotonic()
        try:
            watch.room()
        except ClusterError:
            return longest
        longest = max(longest, time.monotonic() - asked)
        time.sleep(0.01)
    raise AssertionError("nothing was raised")


def test_the_room_is_that_of_a_moment_ago(head: dict[str, bool]) -> None:
    rooms = iter([2, 3])
    with watching.watched(lambda: next(rooms, 5)) as watch:
        seen = {watch.room()}
        end = time.monotonic() + 20
        while 5 not in seen and time.monotonic() < end:
            seen.add(watch.room())
    assert {2, 5} <= seen <= {2, 3, 5}


def test_a_head_that_goes_is_raised_where_the_room_is_asked_for(head: dict[str, bool]) -> None:
    with watching.watched(lambda: 2) as watch:
        assert watch.room() == 2
        head["gone"] = True
        until_raised(watch)


def test_a_look_that_hangs_with_the_head_holds_nobody_up(head: dict[str, bool]) -> None:
    free, first = threading.Event(), threading.Event()

    def room() -> int:
        if first.is_set():
            head["gone"] = True  # between the look at it and the question
            free.wait(60)
        first.set()
        return 2

    with watching.watched(room) as watch:
        longest = until_raised(watch)
        free.set()
    assert longest < 5


def test_who_is_to_hear_of_a_head_that_goes_hears_of_it_once(head: dict[str, bool]) -> None:
    heard: list[Exception] = []
    with watching.watched(lambda: 2, heard.append) as watch:
        head["gone"] = True
        until_raised(watch)
        time.sleep(0.05)
    assert [type(error) for error in heard] == [ClusterError]
