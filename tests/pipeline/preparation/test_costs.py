"""Budgets and sizes as people write them, as limits."""

import re
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

import search_spaces
from igq import InfeasibleBudgetError, Layer, Limits, Setting, Unit, uniform
from pipeline.preparation.costs import limits_of
from search_spaces import parse_budget
from tests.makers import bops_of

PARAMETERS = 20_000
MIXED = {"weight_bits": [3, 4, 8], "activation_bits": [4, 6], "budget": {"uniform": "w4a4g2"}}
Resolve = Callable[..., Limits]


@pytest.fixture
def resolve(layers: tuple[Layer, ...], write_space: Callable[..., Path], tmp_path: Path) -> Resolve:
    """The limits of the tiny space with these changes, in the paper's scheme."""

    def call(wanted: str | None = "uniform:2", **changes: Any) -> Limits:
        paper = {"softmax_method": "rows", "input_method": "channels", "rotation": "none"}
        paper |= {"assignment": "nearest", "num_groups": [1, 2, 4, 8]}
        space = search_spaces.load(write_space(tmp_path, **(paper | changes)))
        if wanted is not None:
            space = space.model_copy(update={"budget": parse_budget(wanted)})
        return limits_of(space, layers, PARAMETERS)

    return call


class TestBudget:
    @pytest.mark.parametrize("number", [1, 2, 8])
    def test_uniform_is_the_cost_of_so_many_groups_in_every_layer(
        self, resolve: Resolve, layers: tuple[Layer, ...], number: int
    ) -> None:
        limits = resolve(f"uniform:{number}")
        assert limits.budget == limits.table.of(uniform(layers, number))

    def test_uniform_may_lie_between_the_choices(
        self, resolve: Resolve, layers: tuple[Layer, ...]
    ) -> None:
        limits = resolve("uniform:3")
        two, four = (limits.table.of(uniform(layers, number)) for number in (2, 4))
        assert two < limits.budget < four

    def test_bops_are_taken_as_they_are(self, resolve: Resolve) -> None:
        wanted = int(resolve().table.minimum) + 5
        assert resolve(f"bops:{wanted}").budget == wanted

    def test_overhead_is_on_top_of_one_group_everywhere(
        self, resolve: Resolve, layers: tuple[Layer, ...]
    ) -> None:
        one = bops_of(layers, (1,)).minimum
        for groups in ([1, 2, 4, 8], [2, 4]):
            assert resolve("overhead:50%", num_groups=groups).budget == int(1.5 * one)

    @pytest.mark.parametrize("budget", ["bops:1", "overhead:0.001%", "uniform:1"])
    def test_a_budget_that_nothing_meets_is_refused_with_the_cheapest_possible(
        self, resolve: Resolve, layers: tuple[Layer, ...], budget: str
    ) -> None:
        least = bops_of(layers, (2, 4)).minimum
        with pytest.raises(InfeasibleBudgetError, match=re.escape(f"{least:.4g} BOPs")):
            resolve(budget, num_groups=[2, 4])

    def test_with_bits_it_is_the_cost_of_the_setting_everywhere(self, resolve: Resolve) -> None:
        limits = resolve(None, **MIXED)
        everywhere = Setting(4, 4, 2)
        settings = {
            name: next(s for s in limits.settings(name) if _part_of(s, everywhere))
            for name in limits.names
        }
        assert limits.budget == limits.table.of(settings)


def _part_of(setting: Setting, whole: Setting) -> bool:
    pairs = zip(astuple(setting), astuple(whole), strict=True)
    return all(part in (None, value) for part, value in pairs)


class TestSize:
    def weights(self, layers: tuple[Layer, ...]) -> int:
        return sum(layer.channels * layer.outputs for layer in layers if layer.weighted)

    def test_bytes_are_taken_as_they_are(self, resolve: Resolve) -> None:
        least = resolve(None, **MIXED).limits[1].table.minimum
        assert resolve(None, **MIXED, max_size=f"{least + 7} B").limits[1].most == least + 7

    def test_bits_are_those_of_every_weight(
        self, resolve: Resolve, layers: tuple[Layer, ...]
    ) -> None:
        limit = resolve(None, **MIXED, max_size={"weight_bits": 4}).limits[1]
        assert limit.most == limit.table.fixed + self.weights(layers) // 2

    def test_without_one_the_size_is_told_and_not_limited(self, resolve: Resolve) -> None:
        limits = resolve(None, **MIXED)
        assert [limit.table.unit for limit in limits.limits] == [Unit.BOPS, Unit.BYTES]
        assert [limit.table.unit for limit in limits.bounded] == [Unit.BOPS]

    def test_where_bits_are_not_searched_it_is_checked_and_not_told(self, resolve: Resolve) -> None:
        assert len(resolve(max_size={"weight_bits": 4}).limits) == 1
        with pytest.raises(InfeasibleBudgetError, match="smallest possible model's"):
            resolve(max_size="100 B")

    def test_less_than_the_smallest_is_refused(self, resolve: Resolve) -> None:
        least = resolve(None, **MIXED).limits[1].table.minimum
        with pytest.raises(InfeasibleBudgetError, match=f"smallest possible model's {least:,} byt"):
            resolve(None, **MIXED, max_size=f"{least - 1} B")


def test_tied_layers_share_their_setting(resolve: Resolve) -> None:
    limits = resolve(tied="kind")
    assert list(limits.names) == list(limits.ties)
    assert limits.expand({name: limits.settings(name)[0] for name in limits.names}).keys() == {
        "qkv",
        "softmax",
        "fc1",
        "fc2",
    }
