"""Budgets and sizes as people write them, as limits."""

import re
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

import search_spaces
from igq import (
    InfeasibleBudgetError,
    InvalidArgumentError,
    Layer,
    Limits,
    ProfileError,
    Setting,
    Unit,
    uniform,
)
from igq.costs import Machine, Operator, Profile, Timing
from igq.costs.latency import TIMED
from pipeline.preparation.costs.limits import limits_of, most_cost
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

    def test_overhead_that_nothing_meets_is_refused_as_it_is_written(
        self, resolve: Resolve, layers: tuple[Layer, ...]
    ) -> None:
        least = bops_of(layers, (2, 4)).minimum / bops_of(layers, (1,)).minimum - 1
        rule = "`budget` must be at least the cheapest possible allocation's overhead of "
        said = f"{rule}{least:.2%}, but got overhead 0.00%."
        with pytest.raises(InfeasibleBudgetError, match=f"^{re.escape(said)}$"):
            resolve("overhead:0.001%", num_groups=[2, 4])

    @pytest.mark.parametrize("budget", ["bops:1", "uniform:1"])
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


LATENCY: dict[str, Any] = {"budget": {"latency": "uniform:2", "table": "latency.json"}}


def profile_of(layers: tuple[Layer, ...], space: search_spaces.SearchSpace) -> Profile:
    """A table in which each group of each layer takes a ms, and 8 groups were not measured."""
    operators = []
    for layer in layers:
        if layer.kind in TIMED:
            weights = 4 if layer.weighted else None
            numbers = (1, 2, 4) if layer.grouped else (None,)
            settings = {
                Setting(weights, layer.bits or 4, g): Timing(float(g or 1), 0.0) for g in numbers
            }
            shape = (layer.tokens, layer.channels, layer.outputs)
            operators.append(Operator(layer.kind, shape, (layer.name,), settings))
    machine = Machine("AMD EPYC", "avx512", 1)
    return Profile("here", machine, "0.2.0", "tiny", space.scheme, tuple(operators), 1.0)


class TestLatency:
    @pytest.fixture
    def space(self, write_space: Callable[..., Path], tmp_path: Path) -> search_spaces.SearchSpace:
        changes = {"num_groups": [1, 2, 4, 8], **LATENCY}
        return search_spaces.load(write_space(tmp_path, **changes))

    def test_it_is_the_budget_and_bops_are_told_beside_it(
        self, space: search_spaces.SearchSpace, layers: tuple[Layer, ...]
    ) -> None:
        limits = limits_of(space, layers, PARAMETERS, profile_of(layers, space))
        timed = [layer for layer in layers if layer.kind in TIMED]
        assert limits.budget == 1e6 * (1 + sum(2 if la.grouped else 1 for la in timed))
        assert [limit.table.unit for limit in limits.limits] == [Unit.NANOSECONDS, Unit.BOPS]
        assert [limit.table.unit for limit in limits.bounded] == [Unit.NANOSECONDS]
        assert list(limits.costs(uniform(layers, 4))) == [Unit.NANOSECONDS, Unit.BOPS]
        assert limits.overhead(limits.costs(uniform(layers, 4))) > 0

    def test_settings_that_were_not_measured_are_not_offered(
        self, space: search_spaces.SearchSpace, layers: tuple[Layer, ...]
    ) -> None:
        limits = limits_of(space, layers, PARAMETERS, profile_of(layers, space))
        for limit in limits.limits:
            for row in limit.table.layers.values():
                assert {setting.num_groups for setting in row} == {1, 2, 4}

    def test_a_time_is_taken_as_it_is_and_one_that_nothing_keeps_is_refused(
        self, space: search_spaces.SearchSpace, layers: tuple[Layer, ...]
    ) -> None:
        profile = profile_of(layers, space)
        for written, most in (("14.5 ms", 14_500_000), ("20ms", 20_000_000)):
            wanted = space.model_copy(update={"budget": parse_budget(f"latency:{written}")})
            assert limits_of(wanted, layers, PARAMETERS, profile).budget == most
        wanted = space.model_copy(update={"budget": parse_budget("latency:1ms")})
        with pytest.raises(InfeasibleBudgetError, match=r"fastest .* ms, but got budget=1 ms"):
            limits_of(wanted, layers, PARAMETERS, profile)

    def test_bops_can_be_limited_besides(
        self, space: search_spaces.SearchSpace, layers: tuple[Layer, ...]
    ) -> None:
        both = space.model_copy(update={"max_bops": parse_budget("uniform:1")})
        limits = limits_of(both, layers, PARAMETERS, profile_of(layers, space))
        assert limits.fits(uniform(layers, 1))
        assert not limits.fits(uniform(layers, 2))

    def test_noise_makes_no_uniform_setting_cheaper_than_the_fewest_groups(
        self, space: search_spaces.SearchSpace, layers: tuple[Layer, ...]
    ) -> None:
        profile = profile_of(layers, space)
        faster = tuple(
            replace(made, timings={s: Timing(1.0 / (s.num_groups or 1), 0.0) for s in made.timings})
            for made in profile.operators
        )
        noisy = limits_of(space, layers, PARAMETERS, replace(profile, operators=faster))
        assert noisy.budget == noisy.table.minimum

    def test_a_uniform_setting_that_was_not_measured_is_refused(
        self, space: search_spaces.SearchSpace, layers: tuple[Layer, ...]
    ) -> None:
        wanted = space.model_copy(update={"budget": parse_budget("latency:uniform:8")})
        with pytest.raises(ProfileError, match="must have 8 measured for"):
            limits_of(wanted, layers, PARAMETERS, profile_of(layers, space))

    def test_a_budget_in_another_unit_is_refused(
        self, space: search_spaces.SearchSpace, layers: tuple[Layer, ...]
    ) -> None:
        profile = profile_of(layers, space)
        limits = limits_of(space, layers, PARAMETERS, profile)
        with pytest.raises(
            InvalidArgumentError, match=r"unit of the study's, latency, .* uniform 2"
        ):
            most_cost(parse_budget("uniform:2"), space, layers, limits.table, profile)
        bops = limits.limits[1].table
        with pytest.raises(InvalidArgumentError, match=r"unit of the study's, bops, .* 14 ms"):
            most_cost(parse_budget("latency:14ms"), space, layers, bops)
