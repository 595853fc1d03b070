"""The final round: who is in it, who wins, and how it is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from igq import Allocation, Unit
from pipeline.data import Images
from pipeline.errors import StudyError
from pipeline.preparation.prepare import Preparation
from pipeline.searching.final_round import FINALISTS, final_line, finalists, play
from pipeline.study.best import chosen
from pipeline.study.final import Final, load_final, save_final
from pipeline.study.trials import Origin, State, Trial

Make = Callable[..., Trial]
BUDGET = 100


@pytest.fixture
def trials(trial: Make) -> list[Trial]:
    """Twenty of rising KL; the last three are the starts."""
    origins = [Origin.SAMPLER] * 17 + [Origin.UNIFORM, Origin.ILP, Origin.FISHER]
    made = [trial(i, (1.0 + i,), origin=origin) for i, origin in enumerate(origins)]
    return [
        replace(t, proposal=replace(t.proposal, allocation=Allocation.of({"fc": 1 + t.number})))
        for t in made
    ]


def test_the_best_few_and_the_starts_are_in_it(trials: list[Trial]) -> None:
    numbers = [trial.number for trial in finalists(reversed(trials), BUDGET)]
    assert numbers == [*range(FINALISTS), 17, 18, 19]


def test_what_did_not_complete_or_costs_too_much_is_not(trials: list[Trial]) -> None:
    trials[0] = replace(trials[0], state=State.PRUNED)
    trials[1] = replace(
        trials[1], proposal=replace(trials[1].proposal, costs={Unit.BOPS: BUDGET + 1})
    )
    assert not {0, 1} & {trial.number for trial in finalists(trials, BUDGET)}


def test_an_allocation_is_in_it_once(trials: list[Trial]) -> None:
    same = replace(trials[19].proposal, allocation=trials[0].proposal.allocation)
    trials[19] = replace(trials[19], proposal=same)
    assert len(finalists(trials, BUDGET)) == FINALISTS + 2


def test_the_winner_is_chosen_though_another_was_better_in_the_search(trials: list[Trial]) -> None:
    final = Final({0: (0.9, 0.9), 3: (0.5, 0.5), 18: (0.6, 0.4), 19: (0.1,)})
    assert chosen(trials, BUDGET, final) is trials[3]
    assert chosen(trials, BUDGET, None) is trials[0]


class TestIncumbent:
    KLS: Mapping[int, tuple[float, ...]] = {
        0: (0.5, 0.6, 0.7, 0.8),
        3: (0.3, 0.4, 0.5, 0.61),
        18: (0.1, 0.6, 0.9, 0.7),
        19: (0.0, 0.0),
    }

    @pytest.mark.parametrize(
        ("kls", "winner"),
        [
            ({0: KLS[0], 18: KLS[18]}, 0),  # less on average, by one image alone
            ({0: KLS[0], 3: KLS[3], 18: KLS[18], 19: KLS[19]}, 3),
            ({0: KLS[3], 3: KLS[0]}, 0),
            ({0: (0.9,), 3: (0.1,)}, 0),  # one image shows nothing
            ({0: KLS[0], 3: KLS[0]}, 0),
        ],
        ids=["no different", "clearly better", "worse", "one image", "equal"],
    )
    def test_only_what_is_clearly_better_takes_its_place(
        self, kls: Mapping[int, tuple[float, ...]], winner: int
    ) -> None:
        assert Final(kls, incumbent=0).winner == winner

    def test_it_says_who_had_less(self, trials: list[Trial]) -> None:
        final = Final({19: self.KLS[0], 18: self.KLS[18], 0: (0.9,)}, incumbent=19)
        assert final_line(trials, final) == (
            "The final round, on 4 images, took trial 19 (fisher): KL 0.6500 there (trial 18 has "
            "0.5750, which is no different); trial 0, the best on search images (KL 1.0000), "
            "has 0.9000 on the first 1."
        )


def test_it_says_what_it_took_and_how_the_best_of_the_search_did(trials: list[Trial]) -> None:
    assert final_line(trials, Final({0: (0.9,), 18: (0.4, 0.6)})) == (
        "The final round, on 2 images, took trial 18 (ilp): KL 0.5000 there; "
        "trial 0, the best on search images (KL 1.0000), has 0.9000 on the first 1."
    )
    assert final_line(trials, Final({0: (0.4,), 18: (0.5,)})) == (
        "The final round, on 1 images, took trial 0 (sampler): KL 0.4000 there."
    )


def test_it_counts_every_image_of_every_finalist() -> None:
    assert Final({0: (0.9,), 3: (0.5, 0.4)}).passes == 3


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    final = Final({3: (0.5, 0.25), 0: (0.9,), 2: (0.5, 0.3)}, incumbent=2)
    save_final(tmp_path / "final.json", final)
    assert load_final(tmp_path / "final.json") == final
    save_final(tmp_path / "final.json", None)
    assert load_final(tmp_path / "final.json") is None


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"kls": {"x": [1]}}',
        '{"kls": {"1": 1}}',
        '{"kls": {}}',
        '{"kls": {"1": []}}',
        '{"kls": {"1": [1]}, "incumbent": 2}',
        '{"kls": {"1": [1, 2], "2": [1]}, "incumbent": 2}',
    ],
    ids=str,
)
def test_a_damaged_one_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "final.json"
    path.write_text(content)
    with pytest.raises(StudyError, match="must hold a study's final round"):
        load_final(path)


def test_one_of_before_has_no_incumbent(tmp_path: Path) -> None:
    path = tmp_path / "final.json"
    path.write_text('{"kls": {"1": [0.5, 0.5], "2": [0.1, 0.8]}}')
    assert load_final(path) == Final({1: (0.5, 0.5), 2: (0.1, 0.8)})


class TestRounds:
    @pytest.fixture
    def preparation(self) -> Preparation:
        return Mock(spec=Preparation, budget=BUDGET, model=None, task=None, limits=None)

    @pytest.fixture
    def play_on(
        self, preparation: Preparation, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Sequence[Trial], int], Final | None]:
        """Plays on so many images; the later a trial, the less its KL on each."""

        def measure(*arguments: Any) -> Any:
            contenders, images, progress = arguments[3:]
            progress(1.0)
            numbers = [contender.trial.number for contender in contenders]
            measured = [Mock(number=n, kls=(1 / (1 + n),) * len(images)) for n in numbers]
            return Mock(measured=measured)

        monkeypatch.setattr("pipeline.searching.final_round.measure", measure)
        monkeypatch.setattr("pipeline.searching.final_round.FEWEST", 4)

        def played(few: Sequence[Trial], count: int) -> Final | None:
            images = Images("", torch.ones(count, 1, 1, 1), None, "")
            heard: list[float] = []
            final = play(preparation, few, images, heard.append)
            assert heard == sorted(heard)
            assert not heard or heard[-1] == 1
            return final

        return played

    def test_the_better_half_sees_twice_as_many_images(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        final = play_on(trials[:8], 16)
        assert {n: len(kls) for n, kls in final.kls.items()} == {
            **dict.fromkeys(range(4), 4),
            **dict.fromkeys((4, 5), 8),
            **dict.fromkeys((6, 7), 16),
        }
        assert final.winner == 7
        assert final.passes == 4 * 4 + 2 * 8 + 2 * 16

    @pytest.mark.parametrize("missing", [(), (Origin.FISHER,), (Origin.FISHER, Origin.ILP)])
    def test_the_program_is_left_too_though_it_is_among_the_worse(
        self, play_on: Callable[..., Final], trials: list[Trial], missing: tuple[Origin, ...]
    ) -> None:
        few = [t for t in [*trials[17:], *trials[:8]] if t.proposal.origin not in missing]
        stands = next((o for o in (Origin.FISHER, Origin.ILP) if o not in missing), None)
        order = {trial.number: place for place, trial in enumerate(few)}
        renamed = [replace(t, proposal=replace(t.proposal, number=order[t.number])) for t in few]
        final = play_on(renamed, 16)
        if stands is None:
            assert final.incumbent is None
        else:
            assert final.incumbent is not None
            assert renamed[final.incumbent].proposal.origin is stands
            assert len(final.kls[final.incumbent]) == 16
            assert final.winner == final.least == len(few) - 1

    def test_the_program_is_known_by_its_allocation(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        same = replace(trials[3].proposal, allocation=trials[19].proposal.allocation)
        trials[3] = replace(trials[3], proposal=same)
        final = play_on(trials, 16)
        assert final.incumbent in {3, 19}
        assert final.incumbent in final.kls

    def test_two_are_left_to_the_last_image(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        assert {len(kls) for kls in play_on(trials[:2], 16).kls.values()} == {16}

    def test_few_images_make_one_round(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        assert {len(kls) for kls in play_on(trials[:8], 3).kls.values()} == {3}

    @pytest.mark.parametrize(("finalists", "images"), [(8, 0), (1, 16)])
    def test_without_images_or_a_choice_there_is_none(
        self, play_on: Callable[..., Final], trials: list[Trial], finalists: int, images: int
    ) -> None:
        assert play_on(trials[:finalists], images) is None
