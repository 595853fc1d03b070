"""The final round: who is in it, who wins, and how it is kept."""

import json
from collections.abc import Callable, Sequence
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
    final = Final({0: (0.9, 0.9), 3: (0.5, 0.5), 18: (0.6, 0.4), 19: (0.1,)}, winner=3)
    assert chosen(trials, BUDGET, final) is trials[3]
    assert chosen(trials, BUDGET, None) is trials[0]


def test_it_says_what_it_took_and_how_the_best_of_the_search_did(trials: list[Trial]) -> None:
    assert final_line(trials, Final({0: (0.9,), 18: (0.4, 0.6)}, winner=18)) == (
        "The final round, on 2 images, took trial 18 (ilp): KL 0.5000 there; "
        "trial 0, the best on search images (KL 1.0000), has 0.9000 on the first 1."
    )
    assert final_line(trials, Final({0: (0.4,), 18: (0.5,)}, winner=0)) == (
        "The final round, on 1 images, took trial 0 (sampler): KL 0.4000 there."
    )


def test_it_says_who_had_less(trials: list[Trial]) -> None:
    final = Final({19: (0.5, 0.8), 18: (0.1, 1.0), 0: (0.9,)}, winner=19)
    assert final_line(trials, final) == (
        "The final round, on 2 images, took trial 19 (fisher): KL 0.6500 there (trial 18 has "
        "0.5500, which is no different); trial 0, the best on search images (KL 1.0000), "
        "has 0.9000 on the first 1."
    )


def test_it_counts_every_image_of_every_finalist() -> None:
    assert Final({0: (0.9,), 3: (0.5, 0.4)}, winner=3).passes == 3


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    kls = {3: (0.5, 0.25), 0: (0.9,), 2: (0.5, 0.3)}
    final = Final(kls, winner=2, predicted={3: 0.02, 0: 0.03, 2: 0.01})
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
        '{"kls": {"1": [1]}, "winner": 2}',
        '{"kls": {"1": [1]}, "winner": "1"}',
        '{"kls": {"1": [1]}, "winner": 1, "predicted": [1]}',
    ],
    ids=str,
)
def test_a_damaged_one_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "final.json"
    path.write_text(content)
    with pytest.raises(StudyError, match=r"must (hold a study's final round|be as it was written)"):
        load_final(path)


ONE, CLEARLY, HARDLY = [0.5, 0.6, 0.7, 0.8], [0.3, 0.4, 0.5, 0.61], [0.1, 0.6, 0.9, 0.7]


@pytest.mark.parametrize(
    ("kls", "incumbent", "winner"),
    [
        ({"1": [0.5, 0.5], "2": [0.1, 0.8]}, None, 2),
        ({"1": ONE, "2": HARDLY}, 1, 1),  # less on average, by one image alone
        ({"1": ONE, "2": CLEARLY, "3": HARDLY, "4": [0.0, 0.0]}, 1, 2),
        ({"1": CLEARLY, "2": ONE}, 1, 1),
        ({"1": [0.9], "2": [0.1]}, 1, 1),  # one image shows nothing
    ],
    ids=["no incumbent", "no different", "clearly better", "worse", "one image"],
)
def test_one_of_before_keeps_the_winner_that_it_had(
    tmp_path: Path, kls: dict[str, list[float]], incumbent: int | None, winner: int
) -> None:
    path = tmp_path / "final.json"
    path.write_text(json.dumps({"kls": kls, "incumbent": incumbent}))
    assert load_final(path) == Final({int(n): tuple(row) for n, row in kls.items()}, winner)


class TestRounds:
    @pytest.fixture
    def preparation(self) -> Preparation:
        mock = Mock(spec=Preparation, budget=BUDGET, model=None, task=None, limits=None)
        mock.sensitivities_of = lambda allocation: {
            ("fc", allocation["fc"]): 1.0 / allocation["fc"].num_groups
        }
        return mock

    @pytest.fixture
    def play_on(
        self, preparation: Preparation, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Final | None]:
        """Plays on so many images; a trial's KL on image j is `kl(number, j)`."""

        def played(few: Sequence[Trial], count: int, kl: Callable[[int, int], float]) -> Any:
            def measure(*arguments: Any) -> Any:
                contenders, images, progress, _ = arguments[3:]
                progress(1.0)
                places = images.values.flatten().long().tolist()
                numbers = [contender.trial.number for contender in contenders]
                measured = [Mock(number=n, kls=tuple(kl(n, j) for j in places)) for n in numbers]
                return Mock(measured=measured)

            monkeypatch.setattr("pipeline.searching.final_round.measure", measure)
            monkeypatch.setattr("pipeline.searching.final_round.FEWEST", 4)
            images = Images("", torch.arange(count).reshape(-1, 1, 1, 1).float(), None, "")
            heard: list[float] = []
            final = play(preparation, few, images, heard.append)
            assert heard == sorted(heard)
            assert not heard or heard[-1] == 1
            return final

        return played

    def test_what_is_surely_worse_sees_no_more(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        def kl(number: int, image: int) -> float:
            noise = 0.1 * ((7 * image + 3 * number) % 5)
            return 0.5 + noise if number in {2, 5} else 4.0 + noise

        final = play_on(trials[:8], 16, kl)
        assert {n: len(kls) for n, kls in final.kls.items()} == {
            **dict.fromkeys((0, 1, 3, 4, 6, 7), 4),
            **dict.fromkeys((2, 5), 16),
        }
        assert final.winner == min((2, 5), key=final.kl)
        assert final.passes == 6 * 4 + 2 * 16

    def test_those_alike_see_all_and_the_prediction_decides(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        final = play_on(trials[:4], 16, lambda number, image: 0.5 + 0.1 * image)
        assert {len(kls) for kls in final.kls.values()} == {16}
        assert final.predicted == {n: 1 / (1 + n) for n in range(4)}
        assert final.winner == 3

    def test_the_last_one_left_sees_no_more(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        def kl(number: int, image: int) -> float:
            return 0.1 + 4 * (number > 0) + 0.01 * ((image + number) % 3)

        final = play_on(trials[:3], 16, kl)
        assert {len(kls) for kls in final.kls.values()} == {4}
        assert final.winner == 0

    def test_few_images_make_one_round(
        self, play_on: Callable[..., Final], trials: list[Trial]
    ) -> None:
        final = play_on(trials[:8], 3, lambda number, image: 1 / (1 + number))
        assert {len(kls) for kls in final.kls.values()} == {3}

    @pytest.mark.parametrize(("finalists", "images"), [(8, 0), (1, 16)])
    def test_without_images_or_a_choice_there_is_none(
        self, play_on: Callable[..., Final], trials: list[Trial], finalists: int, images: int
    ) -> None:
        assert play_on(trials[:finalists], images, lambda *_: 1.0) is None
