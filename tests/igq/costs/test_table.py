"""Cost tables in any unit, and limits to any number of them."""

import pytest

from igq import (
    Allocation,
    CostTable,
    InfeasibleBudgetError,
    InvalidArgumentError,
    Limit,
    Limits,
    Unit,
    allocate,
)
from igq.costs.ties import Ties
from tests.makers import alike, groups, limits_of, settings_of, table_of

BOPS = table_of({"a": {1: 1, 2: 2}, "b": {1: 1, 2: 2}})
BYTES = table_of({"a": {1: 10, 2: 20}, "b": {1: 5, 2: 5}}, fixed=1, unit=Unit.BYTES)
BOTH = Limits((Limit(BOPS, 3), Limit(BYTES, 25)))


class TestCostTable:
    def test_an_allocation_costs_the_fixed_part_and_the_sum_of_its_layers(self) -> None:
        assert BYTES.of(Allocation.of({"a": 2, "b": 1})) == 1 + 20 + 5

    def test_the_minimum_and_maximum_are_those_of_allocations(self) -> None:
        assert (BYTES.minimum, BYTES.maximum) == (16, 26)

    def test_it_varies_where_a_setting_changes_the_cost(self) -> None:
        assert BYTES.varies
        assert not table_of({"a": {1: 7, 2: 7}}).varies

    @pytest.mark.parametrize(
        ("allocation", "odd"),
        [({"a": 1}, "b"), ({"a": 1, "b": 1, "head": 1}, "head")],
        ids=["missing", "unknown"],
    )
    def test_an_allocation_of_other_layers_is_refused(
        self, allocation: dict[str, int], odd: str
    ) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            BOPS.of(Allocation.of(allocation))
        assert str(raised.value) == (
            f"`allocation` must name each of the 2 layers once, but differs in {odd}."
        )

    def test_a_number_of_groups_that_is_not_in_the_table_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            BOPS.of(alike("ab", 3))
        assert str(raised.value) == "`num_groups` must be one of [1, 2], but got 3 for a."

    def test_settings_come_cheapest_first(self) -> None:
        assert table_of({"a": {4: 9, 1: 2, 2: 5}}).settings("a") == [*map(groups, (1, 2, 4))]

    def test_overhead_needs_a_plain_cost(self) -> None:
        assert table_of({"a": {1: 8}}, plain=8).overhead(10) == pytest.approx(0.25)
        with pytest.raises(InvalidArgumentError, match="must have a plain cost"):
            BYTES.overhead(10)

    def test_limits_tell_their_tables_by_unit_and_the_overhead_of_bops(self) -> None:
        bops = table_of({"a": {1: 1, 2: 2}, "b": {1: 7}}, plain=8)
        both = Limits((Limit(bops, 9), Limit(BYTES)))
        assert (both.in_unit(Unit.BOPS), both.in_unit(Unit.BYTES)) == (bops, BYTES)
        assert both.in_unit(Unit.NANOSECONDS) is None
        assert both.overhead({Unit.BOPS: 10}) == pytest.approx(0.25)
        with pytest.raises(InvalidArgumentError, match="there is no table"):
            Limits((Limit(BYTES, 9),)).overhead({Unit.BYTES: 10})

    def test_its_limit_is_a_number_or_the_cost_of_a_setting_everywhere(self) -> None:
        assert BOPS.limit(3).budget == 3
        assert BOPS.limit(uniform=2).budget == 4
        for wrong in ({}, {"most": 3, "uniform": 2}):
            with pytest.raises(InvalidArgumentError, match="`most` or `uniform`"):
                BOPS.limit(**wrong)
        with pytest.raises(InvalidArgumentError, match="one of"):
            BOPS.limit(uniform=3)

    @pytest.mark.parametrize(
        ("unit", "words", "metric"),
        [
            (Unit.BOPS, "2.1e+10 BOPs", ("bops", 2.1e10)),
            (Unit.BYTES, "2.1e+04 MB", ("size_mb", 2.1e4)),
            (Unit.NANOSECONDS, "2.1e+04 ms", ("latency_ms", 2.1e4)),
        ],
    )
    def test_a_unit_has_words_and_a_metric(
        self, unit: Unit, words: str, metric: tuple[str, float]
    ) -> None:
        assert unit.words(2.1e10) == words
        assert unit.metric(2.1e10) == metric


class TestLimits:
    def test_an_allocation_fits_that_keeps_all(self) -> None:
        assert BOTH.fits(Allocation.of({"a": 1, "b": 2}))
        assert not BOTH.fits(Allocation.of({"a": 2, "b": 2}))  # 4 BOPs
        assert not BOTH.fits(Allocation.of({"a": 2, "b": 1}))  # 26 bytes

    def test_costs_are_told_in_every_unit_the_budget_s_first(self) -> None:
        costs = BOTH.costs(Allocation.of({"a": 2, "b": 1}))
        assert list(costs.items()) == [(Unit.BOPS, 3), (Unit.BYTES, 26)]

    def test_a_table_without_a_most_is_told_and_bounds_nothing(self) -> None:
        told = Limits((Limit(BOPS, 3), Limit(BYTES)))
        assert [limit.table.unit for limit in told.bounded] == [Unit.BOPS]
        assert told.fits(Allocation.of({"a": 2, "b": 1}))
        assert told.costs(alike("ab", 1))[Unit.BYTES] == 16

    def test_another_budget_leaves_the_other_limits(self) -> None:
        wider = BOTH.with_budget(4)
        assert (wider.budget, wider.limits[1].most) == (4, 25)
        assert BOTH.budget == 3

    def test_room_is_what_each_limit_leaves(self) -> None:
        assert BOTH.room(Allocation.of({"a": 2, "b": 2})).tolist() == [-1, -1]

    def test_a_cheapest_setting_that_is_not_the_least_of_another_table_is_refused(self) -> None:
        odd = table_of({"a": {1: 9, 2: 5}}, unit=Unit.BYTES)
        with pytest.raises(InvalidArgumentError) as raised:
            Limits((Limit(table_of({"a": {1: 1, 2: 2}}), 9), Limit(odd)))
        assert str(raised.value) == (
            "`size` must be least for the setting of a layer that the budget's table has as its "
            "cheapest, but got 9 for a with 1."
        )

    def test_a_budget_below_the_cheapest_is_infeasible_and_the_message_says_the_least(
        self,
    ) -> None:
        with pytest.raises(InfeasibleBudgetError) as raised:
            limits_of(table_of({"a": {1: 1}}, fixed=100), 100).check()
        assert str(raised.value) == (
            "`budget` must be at least the cheapest possible allocation's 101 BOPs, "
            "but got budget=100."
        )
        assert limits_of(table_of({"a": {1: 1}}, fixed=100), 101).check().budget == 101

    def test_so_is_a_size_that_nothing_has(self) -> None:
        tight = Limits((Limit(BOPS, 9), Limit(BYTES, 15)))
        said = (
            "`max_size` must be at least the smallest possible model's 16 bytes, "
            "but got max_size=15 bytes."
        )
        for refused in (tight.check, lambda: allocate({}, tight)):
            with pytest.raises(InfeasibleBudgetError) as raised:
                refused()
            assert str(raised.value) == said

    def test_any_number_of_units_is_kept(self) -> None:
        latency = CostTable(
            Unit.NANOSECONDS, settings_of({"a": {1: 0.5, 2: 0.7}, "b": {1: 0.5, 2: 0.9}}), 1.0
        )
        three = Limits((*BOTH.limits, Limit(latency, 2.3)))
        assert not three.fits(Allocation.of({"a": 1, "b": 2}))
        assert three.fits(Allocation.of({"a": 1, "b": 1}))


class TestTies:
    def test_tied_layers_share_their_setting_and_add_up(self) -> None:
        ties = Ties({"ab": ("a", "b")})
        assert ties.expand({"ab": groups(2)}) == {"a": groups(2), "b": groups(2)}
        assert ties.sum(BYTES.layers) == settings_of({"ab": {1: 15, 2: 25}})

    def test_entries_stand_in_order_unless_a_tie_spans_blocks(self) -> None:
        assert Ties({"blocks.0": ("blocks.0.a", "blocks.0.b")}).in_order
        assert not Ties({"a": ("blocks.0.a", "blocks.1.a")}).in_order
        assert not Ties({"a": ("blocks.0.a", "blocks.1.a"), "head": ("head",)}).in_order
