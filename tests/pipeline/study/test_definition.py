"""Definitions: the equality of two studies, and the folders that a study may have."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from igq import Execution
from igq.scheme import Assignment, InputMethod, Rotation, SoftmaxMethod, WeightMethod
from pipeline.errors import StudyError
from pipeline.files import read_json, write_json
from pipeline.study.definition import (
    Definition,
    as_begun,
    check_same,
    digest,
    fingerprint,
    space_of,
)
from pipeline.study.folder import Folder, check_folder
from pipeline.study.request import Request, Sampler


@pytest.fixture
def definition(make_request: Callable[..., Request]) -> Definition:
    return Definition(
        space=make_request().space,
        weights="/somewhere/weights.safetensors",
        model="0123",
        images={"calibration": "a", "search": "b", "validation": "c"},
        sources={"calibration": "digits", "search": "digits", "validation": "digits"},
        seed=0,
        sampler=Sampler.TPE,
    )


def changed(definition: Definition, what: str) -> Definition:
    space = definition.space.model_copy
    changes: dict[str, dict[str, Any]] = {
        "weights": {"weights": "/elsewhere/weights.safetensors"},
        "sources": {"sources": {"calibration": "/elsewhere"}},
        "trials": {"space": space(update={"trials": 999})},
        "description": {"space": space(update={"description": "in other words"})},
        "model": {"model": "4567"},
        "images": {"images": {**definition.images, "search": "d"}},
        "seed": {"seed": 1},
        "sampler": {"sampler": Sampler.RANDOM},
        "execution": {"execution": Execution(compiled=True)},
        "softmax_method": {"space": space(update={"softmax_method": SoftmaxMethod.ROWS})},
        "assignment": {"space": space(update={"assignment": Assignment.NEAREST})},
        "input_method": {"space": space(update={"input_method": InputMethod.CHANNELS})},
        "rotation": {"space": space(update={"rotation": Rotation.NONE})},
        "search_images": {"space": space(update={"search_images": 9})},
        "tuning_steps": {"space": space(update={"tuning_steps": 7})},
        "final_images": {"space": space(update={"final_images": 0})},
        "weight_bits": {"space": space(update={"weight_bits": 8})},
        "num_groups": {"space": space(update={"num_groups": (1, 2)})},
    }
    return replace(definition, **changes[what])


class TestDefinition:
    @pytest.mark.parametrize("what", ["weights", "sources", "trials", "description"])
    def test_where_files_lie_and_how_long_it_runs_make_no_other_study(
        self, definition: Definition, what: str
    ) -> None:
        other = changed(definition, what)
        assert other != definition
        assert other.key == definition.key

    @pytest.mark.parametrize(
        "what",
        [
            "model",
            "images",
            "seed",
            "sampler",
            "execution",
            "weight_bits",
            "num_groups",
            "softmax_method",
            "assignment",
            "input_method",
            "rotation",
            "search_images",
            "final_images",
        ],
    )
    def test_what_decides_the_numbers_makes_another_study(
        self, definition: Definition, what: str
    ) -> None:
        assert changed(definition, what).key != definition.key

    def test_it_is_read_as_it_was_written(self, definition: Definition, tmp_path: Path) -> None:
        definition.write(Folder(tmp_path))
        again = Definition.read(Folder(tmp_path))
        assert (again.key, again.json()) == (definition.key, definition.json())

    @pytest.mark.parametrize("content", ["[]", "{}", '{"space": 3}'])
    def test_a_damaged_one_is_named(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(StudyError, match=r"must (define a study|be as it was written), but"):
            Definition.read(Folder(tmp_path))


class TestFingerprint:
    def test_is_the_same_for_the_same_tensors(self, model: nn.Module) -> None:
        assert fingerprint(model) == fingerprint(model)

    def test_differs_where_one_weight_does(self, model: nn.Module, other_model: nn.Module) -> None:
        assert fingerprint(other_model) != fingerprint(model)

    def test_differs_where_the_same_tensors_have_other_names(self) -> None:
        tensor = nn.Parameter(torch.ones(2))
        first, second = nn.ParameterDict({"a": tensor}), nn.ParameterDict({"b": tensor})
        assert fingerprint(first) != fingerprint(second)


def test_a_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


class TestCheckSame:
    @pytest.mark.parametrize("what", ["weights", "sources", "trials"])
    def test_the_same_study_goes_on(
        self, definition: Definition, tmp_path: Path, what: str
    ) -> None:
        definition.write(Folder(tmp_path))
        check_same(Folder(tmp_path), changed(definition, what))

    @pytest.mark.parametrize(
        ("what", "then", "now"),
        [
            ("seed", "0", "1"),
            ("model", "'0123'", "'4567'"),
            ("sampler", "'tpe'", "'random'"),
            ("images", "'b'", "'d'"),
            ("space.softmax_method", "'keys'", "'rows'"),
            ("space.search_images", "8", "9"),
            ("space.final_images", "4", "0"),
        ],
    )
    def test_another_study_is_refused_with_what_differs(
        self, definition: Definition, tmp_path: Path, what: str, then: str, now: str
    ) -> None:
        definition.write(Folder(tmp_path))
        before = read_json(Folder(tmp_path).study)
        with pytest.raises(
            StudyError,
            match=rf"^`resume` needs .* its {what}[.a-z]* differs: {then} then, {now} now\. "
            r"Go on as it was started, or choose another --out for a new study\.$",
        ):
            check_same(Folder(tmp_path), changed(definition, what.removeprefix("space.")))
        assert read_json(Folder(tmp_path).study) == before

    @pytest.mark.parametrize(
        "later", ["softmax_method", "assignment", "input_method", "rotation", "final_images"]
    )
    def test_a_study_of_before_there_was_a_setting_is_refused(
        self, definition: Definition, tmp_path: Path, later: str
    ) -> None:
        """Nothing says what it was computed with."""
        written = {"key": "of then", **definition.json()}
        del written["space"][later]
        write_json(Folder(tmp_path).study, written)
        with pytest.raises(
            StudyError, match=rf"its space\.{later} differs: not set then, .* now\."
        ):
            check_same(Folder(tmp_path), definition)

    def test_such_a_study_is_exported_as_it_was_computed(self, corrected: Definition) -> None:
        written = corrected.json()
        assert space_of(written).model_dump(exclude={"weights", "images", "trials"}) == (
            corrected.space.model_dump(exclude={"weights", "images", "trials"})
        )
        for later in ("softmax_method", "assignment", "input_method", "rotation"):
            del written["space"][later]
        space = space_of(written)
        assert (space.softmax_method, space.assignment) == (
            SoftmaxMethod.ROWS,
            Assignment.NEAREST,
        )
        assert (space.input_method, space.rotation) == (InputMethod.CHANNELS, Rotation.NONE)


@pytest.fixture
def corrected(definition: Definition) -> Definition:
    space = definition.space.model_copy(update={"weight_method": WeightMethod.CORRECTED})
    return replace(definition, space=space)


class TestAsBegun:
    """A study is tuned by as many steps as when it began, whatever the default has become."""

    def test_steps_decide_where_weights_are_tuned(
        self, definition: Definition, corrected: Definition
    ) -> None:
        assert changed(definition, "tuning_steps").key == definition.key  # nearest codes
        assert changed(corrected, "tuning_steps").key != corrected.key

    @pytest.mark.parametrize("steps", [0, 7, 60])
    def test_steps_are_read_as_they_were_written(
        self, corrected: Definition, tmp_path: Path, steps: int
    ) -> None:
        space = corrected.space.model_copy(update={"tuning_steps": steps})
        replace(corrected, space=space).write(Folder(tmp_path))
        assert Definition.read(Folder(tmp_path)).space.tuned_steps == steps

    def resumed(self, definition: Definition, folder: Path, **named: int) -> int:
        definition.write(Folder(folder))
        space = definition.space.model_copy()
        space.__pydantic_fields_set__.discard("tuning_steps")
        space = space.model_copy(update=named)
        return as_begun(Request(space, folder, resume=True)).space.tuning_steps

    def test_a_study_of_before_the_setting_goes_on_with_60(
        self, corrected: Definition, tmp_path: Path
    ) -> None:
        old = changed(corrected, "tuning_steps")
        old = replace(old, space=old.space.model_copy(update={"tuning_steps": 60}))
        assert "tuning_steps" not in old.json()["space"]
        assert self.resumed(old, tmp_path) == 60

    def test_a_study_goes_on_with_its_own(self, corrected: Definition, tmp_path: Path) -> None:
        assert self.resumed(changed(corrected, "tuning_steps"), tmp_path) == 7

    def test_a_space_that_names_them_is_not_overruled(
        self, definition: Definition, tmp_path: Path
    ) -> None:
        assert self.resumed(definition, tmp_path, tuning_steps=9) == 9

    def test_a_new_study_takes_the_default(self, definition: Definition, tmp_path: Path) -> None:
        request = Request(definition.space, tmp_path)
        assert as_begun(request) is request


class TestCheckFolder:
    def test_a_new_folder_is_allowed_and_not_made(self, tmp_path: Path) -> None:
        check_folder(Folder(tmp_path / "a" / "b"), resume=False)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_with_a_study_is_refused_with_the_way_out(
        self, definition: Definition, tmp_path: Path
    ) -> None:
        definition.write(Folder(tmp_path))
        with pytest.raises(StudyError, match=r"^`out` must not hold a study yet.*--resume"):
            check_folder(Folder(tmp_path), resume=False)
        check_folder(Folder(tmp_path), resume=True)

    def test_there_must_be_a_study_to_resume(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"^a study must hold study\.json, but .* has none"):
            check_folder(Folder(tmp_path / "none"), resume=True)
        assert not (tmp_path / "none").exists()

    def test_a_folder_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StudyError, match=r"^`out` must be a folder that can be written, but "):
            check_folder(Folder(tmp_path / "file" / "study"), resume=False)

    def test_a_folder_that_may_not_be_made_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may all
        with pytest.raises(StudyError, match=r"study is not: Permission denied\.$"):
            check_folder(Folder(tmp_path / "a" / "study"), resume=False)


@pytest.mark.parametrize(("trials", "expected"), [(None, 12), (3, 3)])
def test_a_request_has_the_space_s_trials_unless_it_says_otherwise(
    make_request: Callable[..., Request], trials: int | None, expected: int
) -> None:
    assert make_request(trials=trials).num_trials == expected
