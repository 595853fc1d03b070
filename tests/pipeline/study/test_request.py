"""Requests: names of members are taken, unknown ones refused, seeds get folders of their own."""

from pathlib import Path
from typing import Any

import pytest

import search_spaces
from igq import InvalidArgumentError
from pipeline.study.request import Engine, Request, Sampler

SPACE = search_spaces.load("demo")
FOLDER = Path("studies/demo")


@pytest.fixture(autouse=True)
def _unchecked(unchecked_shapes: None) -> None:
    """Types are a user's as they come: no import hook refuses them first."""


def request_with(**wishes: Any) -> Request:
    return Request(SPACE, FOLDER, **wishes)


def test_a_sampler_and_an_engine_may_be_given_by_name() -> None:
    request = request_with(sampler="tpe", engine="eager")
    assert request.sampler is Sampler.TPE
    assert request.engine is Engine.EAGER


@pytest.mark.parametrize(("name", "value"), [("sampler", "best"), ("engine", "fast")])
def test_an_unknown_name_is_refused(name: str, value: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=f"`{name}` must be one of .*, but got '{value}'"
    ):
        request_with(**{name: value})


def test_one_seed_keeps_the_folder() -> None:
    assert request_with(seed=7).over_seeds(1) == (request_with(seed=7),)


def test_several_seeds_have_a_folder_each() -> None:
    requests = request_with(seed=7).over_seeds(2)
    assert [r.seed for r in requests] == [7, 8]
    assert [r.out for r in requests] == [FOLDER / "seed-7", FOLDER / "seed-8"]
