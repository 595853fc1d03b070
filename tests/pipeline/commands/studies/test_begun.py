"""A study says where it was begun, and a search that goes on elsewhere says so."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from igq.formats.integrity import sealed
from pipeline.cluster import InProcess
from pipeline.commands.machine.surroundings import surroundings
from pipeline.commands.studies.search import BEGUN, run
from pipeline.files import write_json
from pipeline.study.definition import Definition
from pipeline.study.folder import Folder
from pipeline.study.progress import SilentDisplay
from pipeline.study.request import Request
from pipeline.tracking import InMemoryTracker

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("searches")]


class Warned(SilentDisplay):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def begun(make_request: Callable[..., Request]) -> Request:
    request = make_request(trials=4)
    run(request, InProcess(), InMemoryTracker(), SilentDisplay())
    return replace(request, resume=True, trials=5)


def elsewhere(request: Request, **changes: str) -> None:
    folder = Folder(request.out)
    content = json.loads(folder.study.read_text())
    content["begun"] |= changes
    del content["digest"]
    write_json(folder.study, sealed(content))


def test_a_study_notes_processor_and_torch(begun: Request) -> None:
    noted = Definition.read(Folder(begun.out)).begun
    assert noted == {name: surroundings()[name] for name in BEGUN}


def test_here_there_is_nothing_to_say(begun: Request) -> None:
    display = Warned()
    run(begun, InProcess(), InMemoryTracker(), display)
    assert not [text for text in display.warnings if "begun elsewhere" in text]


def test_elsewhere_it_is_said_with_both_and_the_note_stays(begun: Request) -> None:
    elsewhere(begun, torch="1.13", processor="abacus")
    key, display = Definition.read(Folder(begun.out)).key, Warned()
    run(begun, InProcess(), InMemoryTracker(), display)
    (said,) = (text for text in display.warnings if "begun elsewhere" in text)
    assert f"torch 1.13 then, {surroundings()['torch']} now" in said
    assert "processor abacus then" in said
    after = Definition.read(Folder(begun.out))
    assert (after.key, after.begun["torch"]) == (key, "1.13")
