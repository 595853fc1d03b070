"""Allocations, and uniform ones."""

import pytest

from igq import (
    Allocation,
    InvalidArgumentError,
    Kind,
    Layer,
    Limit,
    Limits,
    Options,
    Scheme,
    Setting,
    largest_uniform,
    uniform,
)
from igq.allocation import uniform_allocations
from igq.costs import bops_table, size_table
from tests.makers import alike, bops_of, counts_of, groups

CHOICES = (1, 2, 4, 8)
FC = Layer("fc", Kind.LINEAR, tokens=4, channels=8, outputs=8)
SOFTMAX = Layer("softmax", Kind.SOFTMAX, tokens=6, channels=3, outputs=2)
TABLE = bops_of([FC, SOFTMAX], CHOICES)


class TestAllocation:
    def test_it_is_a_mapping_in_layer_order(self) -> None:
        allocation = Allocation.of({"b": 4, "a": 2})
        assert list(allocation) == ["b", "a"]
        assert dict(allocation) == {"b": groups(4), "a": groups(2)}
        assert len(allocation) == 2
        assert "c" not in allocation

    def test_it_takes_numbers_labels_and_settings(self) -> None:
        assert (
            Allocation.of({"a": 8}) == Allocation.of({"a": "8"}) == Allocation.of({"a": groups(8)})
        )
        assert Allocation.of({"a": "w4a6g8"})["a"] == Setting(4, 6, 8)

    def test_equal_ones_hash_alike(self) -> None:
        assert len({Allocation.of({"a": 2}), Allocation.of({"a": 2}), Allocation.of({"a": 4})}) == 2

    def test_an_unknown_layer_is_a_key_error(self) -> None:
        with pytest.raises(KeyError, match="c"):
            Allocation.of({"a": 2})["c"]


class TestUniform:
    def test_every_grouped_layer_gets_the_same(self) -> None:
        head = Layer("head", Kind.HEAD, tokens=1, channels=3, outputs=4)
        assert uniform([FC, head], 8) == Allocation.of({"fc": 8})

    @pytest.mark.parametrize("num_groups", [0, -3])
    def test_fewer_than_1_group_are_refused(self, num_groups: int) -> None:
        rule = f"^`num_groups` must be at least 1, but got {num_groups}.$"
        with pytest.raises(InvalidArgumentError, match=rule):
            uniform([], num_groups)


class TestUniformAllocations:
    def test_weights_and_activations_have_the_same_bits_where_bits_are_searched(self) -> None:
        table = bops_table([FC], Scheme.PAPER, Options((3, 4), (3, 4, 5), (2,)), (4, 4))
        found = [allocation["fc"] for allocation in uniform_allocations(table)]
        assert found == [Setting(3, 3, 2), Setting(4, 4, 2)]

    def test_bits_of_no_layer_in_common_give_every_combination(self) -> None:
        table = bops_table([FC], Scheme.PAPER, Options((3,), (4, 5), (2,)), (3, 4))
        found = [allocation["fc"] for allocation in uniform_allocations(table)]
        assert found == [Setting(3, 4, 2), Setting(3, 5, 2)]

    def test_numbers_of_groups_alone_come_cheapest_first(self) -> None:
        found = [counts_of(allocation)["fc"] for allocation in uniform_allocations(TABLE)]
        assert found == [*CHOICES]


class TestLargestUniform:
    @pytest.mark.parametrize("number", CHOICES)
    def test_is_exact_at_its_own_cost(self, number: int) -> None:
        wanted = alike(TABLE.layers, number)
        assert largest_uniform(TABLE.limit(TABLE.of(wanted))) == wanted

    @pytest.mark.parametrize(("number", "fewer"), [(2, 1), (4, 2), (8, 4)])
    def test_falls_to_fewer_groups_one_bop_below(self, number: int, fewer: int) -> None:
        budget = TABLE.of(alike(TABLE.layers, number)) - 1
        assert set(counts_of(largest_uniform(TABLE.limit(budget))).values()) == {fewer}

    def test_a_size_may_leave_a_uniform_allocation_more_bits_for_activations(self) -> None:
        options = Options((3, 4), (3, 4, 5), (2, 4))
        table = bops_table([FC], Scheme.PAPER, options, (4, 4))
        sizes = size_table([FC], options, 64)
        budget = Limit(table, table.of({"fc": Setting(4, 4, 2)}))
        told = Limits((budget, Limit(sizes)))
        assert dict(largest_uniform(told)) == {"fc": Setting(4, 4, 2)}
        tight = Limits((budget, Limit(sizes, sizes.minimum)))
        assert dict(largest_uniform(tight)) == {"fc": Setting(3, 5, 2)}
