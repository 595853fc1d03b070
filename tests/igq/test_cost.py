"""Bit operations of an allocation, and what grouping adds to them (Table 1)."""

from dataclasses import replace
from functools import cache

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from igq import Assignment, InvalidArgumentError, Layer, Slices, bops, layers, uniform
from igq.cost import constant_bops, grouping_bops, product_bops
from igq.layers import Tie, tied

FC = Layer("fc", Slices.CHANNELS, tokens=3, channels=4, outputs=5, weighted=True)
SOFTMAX = Layer("softmax", Slices.ROWS, tokens=6, channels=3, outputs=2, weighted=False)
QUERIES = Layer("q", Slices.HEAD_TOKENS, tokens=6, channels=2, outputs=3, weighted=False, heads=2)
TOKENS = Layer("fc", Slices.TOKEN_GROUPS, tokens=3, channels=48, outputs=5, weighted=True)
PATCHES = Layer("patches", Slices.WHOLE, tokens=3, channels=4, outputs=5, weighted=True, bits=8)
MODEL = (PATCHES, FC, QUERIES, SOFTMAX)


class TestClosedForm:
    def test_a_product_with_a_weight_costs_both_widths(self) -> None:
        assert product_bops(FC, weight_bits=4, activation_bits=6) == 3 * 4 * 5 * 4 * 6

    def test_a_product_of_activations_costs_the_activations_width_twice(self) -> None:
        assert product_bops(SOFTMAX, weight_bits=4, activation_bits=6) == 6 * 3 * 2 * 6 * 6

    def test_a_layer_of_fixed_bits_costs_those(self) -> None:
        assert product_bops(PATCHES, weight_bits=4, activation_bits=6) == 3 * 4 * 5 * 4 * 8

    def test_grouped_channels_add_ranges_distances_and_sums(self) -> None:
        ranges, distances, sums = 2 * 3 * 4, 4 * 4 * 8, 7 * 3 * 5
        assert grouping_bops(FC, 8) == 32 * (ranges + distances + sums)

    def test_channels_that_pick_by_expected_error_take_more_operations_for_each_group(self) -> None:
        picking = replace(FC, assignment=Assignment.LEAST_ERROR)
        assert grouping_bops(picking, 8) - grouping_bops(FC, 8) == 32 * (16 - 4) * 4 * 8
        assert grouping_bops(picking, 1) == 0

    def test_grouped_rows_add_ranges_and_distances_but_no_sums(self) -> None:
        assert grouping_bops(SOFTMAX, 8) == 32 * (6 * 3 + 4 * 6 * 8)

    @pytest.mark.parametrize(("groups", "runs"), [(1, 1), (4, 4), (5, 5), (7, 6), (99, 24)])
    def test_groups_of_a_token_add_ranges_and_as_many_sums_as_there_are(
        self, groups: int, runs: int
    ) -> None:
        ranges, sums = 2 * 3 * 48, runs * 3 * 5
        assert grouping_bops(TOKENS, groups) == 32 * (ranges + sums)
        assert constant_bops(TOKENS) == 0

    @pytest.mark.parametrize("layer", [replace(FC, channels=48), TOKENS], ids=["channels", "token"])
    @pytest.mark.parametrize("groups", [1, 8])
    def test_a_rotation_costs_the_additions_of_a_fast_transform(
        self, layer: Layer, groups: int
    ) -> None:
        turned = replace(layer, rotated=True)
        added = grouping_bops(turned, groups) - grouping_bops(layer, groups)
        assert added == 32 * 3 * 48 * 4  # blocks of 16 channels

    @pytest.mark.parametrize("layer", MODEL, ids=lambda layer: layer.name)
    def test_one_group_adds_nothing(self, layer: Layer) -> None:
        assert grouping_bops(layer, 1) == 0

    @pytest.mark.parametrize("layer", [PATCHES, QUERIES], ids=lambda layer: layer.name)
    def test_a_layer_that_is_not_grouped_has_no_groups(self, layer: Layer) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            grouping_bops(layer, 2)
        assert str(raised.value) == f"{layer.name} is not grouped, but got 2 groups for it."

    def test_ranges_of_q_k_and_v_are_taken_in_every_image_and_scores_scaled(self) -> None:
        assert constant_bops(QUERIES) == 32 * (2 * 6 * 2 + 6 * 3)
        assert constant_bops(replace(QUERIES, name="k", outputs=0)) == 32 * 2 * 6 * 2
        assert constant_bops(FC) == constant_bops(SOFTMAX) == constant_bops(PATCHES) == 0

    def test_rows_that_keep_their_sum_need_it_and_the_mean_of_v(self) -> None:
        kept = replace(SOFTMAX, slices=Slices.UNIT_ROWS)
        sums, mean, product = 6 * 3, 6 * 2, 2 * 6 * 2
        assert constant_bops(kept) == 32 * (sums + mean + product)
        assert grouping_bops(kept, 8) == grouping_bops(SOFTMAX, 8)

    def test_keys_in_groups_need_a_maximum_and_as_many_sums(self) -> None:
        keys = replace(SOFTMAX, slices=Slices.KEY_GROUPS, channels=197)
        for groups, runs in ((1, 1), (8, 8), (24, 22)):  # 197 keys are 22 cells
            assert grouping_bops(keys, groups) == 32 * (6 * 197 + runs * 6 * 2)
        assert constant_bops(keys) == 32 * (6 * 197 + 3 * 6 * 2)


class TestTable:
    TABLE = bops(MODEL, (1, 2, 4), weight_bits=4, activation_bits=4)

    def test_an_allocation_costs_the_sum_of_its_layers(self) -> None:
        products = sum(product_bops(layer, 4, 4) for layer in MODEL)
        grouping = grouping_bops(FC, 4) + grouping_bops(SOFTMAX, 2)
        expected = products + grouping + constant_bops(QUERIES)
        assert self.TABLE.of({"fc": 4, "softmax": 2}) == expected

    def test_the_minimum_is_the_cheapest_allocation_s(self) -> None:
        assert self.TABLE.minimum == self.TABLE.of({"fc": 1, "softmax": 1})

    def test_overhead_is_measured_against_one_group_everywhere(self) -> None:
        table = bops(MODEL, (2, 4), weight_bits=4, activation_bits=4)
        assert table.ungrouped == self.TABLE.minimum
        assert table.overhead(table.ungrouped) == 0
        assert table.overhead(2 * table.ungrouped) == 1

    @pytest.mark.parametrize(
        ("allocation", "odd"),
        [({"fc": 1}, "softmax"), ({"fc": 1, "softmax": 1, "head": 1}, "head")],
        ids=["missing", "unknown"],
    )
    def test_an_allocation_of_other_layers_is_refused(
        self, allocation: dict[str, int], odd: str
    ) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            self.TABLE.of(allocation)
        assert str(raised.value) == (
            f"`allocation` must name each of the 2 layers once, but differs in {odd}."
        )

    def test_a_number_of_groups_that_is_not_in_the_table_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            self.TABLE.of({"fc": 3, "softmax": 1})
        assert str(raised.value) == "`num_groups` must be one of [1, 2, 4], but got 3 for fc."

    @pytest.mark.parametrize("name", ["weight_bits", "activation_bits"])
    @pytest.mark.parametrize("value", [1, 9])
    def test_bits_out_of_range_are_named(self, name: str, value: int) -> None:
        bits = {"weight_bits": 4, "activation_bits": 4} | {name: value}
        with pytest.raises(InvalidArgumentError, match=f"but got {name}={value}"):
            bops(MODEL, (1, 2), **bits)

    @pytest.mark.parametrize("num_groups", [(), (0,)], ids=str)
    def test_numbers_of_groups_out_of_range_are_refused(self, num_groups: tuple[int]) -> None:
        with pytest.raises(InvalidArgumentError, match="`num_groups` must be one or more"):
            bops(MODEL, num_groups, weight_bits=4, activation_bits=4)

    @given(smaller=st.tuples(*[st.integers(1, 15)] * 2), more=st.tuples(*[st.integers(0, 15)] * 2))
    def test_more_groups_never_cost_less(
        self, smaller: tuple[int, int], more: tuple[int, int]
    ) -> None:
        table = bops(MODEL, range(1, 31), weight_bits=4, activation_bits=4)
        few = dict(zip(("fc", "softmax"), smaller, strict=True))
        many = {name: g + m for (name, g), m in zip(few.items(), more, strict=True)}
        assert table.of(few) <= table.of(many)


@cache
def blocks_of(name: str) -> tuple[Layer, ...]:
    """The layers of a timm model's blocks (on `meta`: nothing is computed)."""
    with torch.device("meta"):
        model = timm.create_model(name)
    listed = layers(model, assignment=Assignment.NEAREST)
    return tuple(layer for layer in listed if layer.name.startswith("blocks."))


def overhead_of_linears(blocks: tuple[Layer, ...], num_groups: int, bits: int) -> float:
    """In percent: what grouping adds at the linear layers, over all products of the blocks.

    Counted above the line: 32 [2 N C + 4 C G + (G - 1) N D] of qkv, proj, fc1 and fc2; nothing
    for softmax maps. Below it: those four products and both of attention (q k, softmax v), but
    neither patch embedding nor head. So the paper's figures come out.
    """
    added = sum(grouping_bops(layer, num_groups) for layer in blocks if layer.weighted)
    return 100 * added / sum(product_bops(layer, bits, bits) for layer in blocks)


@pytest.mark.parametrize(
    ("name", "num_groups", "percent", "decimals"),
    [
        ("deit_base_patch16_224", 8, 1.6, 1),
        ("deit_base_patch16_224", 12, 2.4, 1),
        ("deit_base_patch16_224", 16, 3.15, 2),
        ("deit_small_patch16_224", 8, 3.1, 1),
        ("deit_small_patch16_224", 12, 4.6, 1),
        ("deit_tiny_patch16_224", 8, 5.8, 1),
        ("deit_tiny_patch16_224", 12, 8.5, 1),
    ],
)
def test_overhead_at_w4a4_is_what_the_paper_reports(
    name: str, num_groups: int, percent: float, decimals: int
) -> None:
    w4a4 = overhead_of_linears(blocks_of(name), num_groups, bits=4)
    assert round(w4a4, decimals) == percent
    # The products grow by 36 / 16, what is added does not.
    w6a6 = overhead_of_linears(blocks_of(name), num_groups, bits=6)
    assert w6a6 == pytest.approx(w4a4 / 2.25)


def test_softmax_maps_add_little_to_the_paper_s_figure() -> None:
    blocks = blocks_of("deit_base_patch16_224")
    table = bops(blocks, (16,), weight_bits=4, activation_bits=4)
    percent = 100 * table.overhead(table.of(uniform(blocks, 16)))
    assert percent == pytest.approx(overhead_of_linears(blocks, 16, bits=4), abs=0.1)
    assert percent > overhead_of_linears(blocks, 16, bits=4)


class TestTied:
    def test_a_tie_costs_what_its_layers_cost_together(self) -> None:
        fcs = [
            Layer(f"blocks.{i}.fc{j}", Slices.CHANNELS, 2 + i, 3, 5 + j, weighted=True)
            for i in (0, 1)
            for j in (1, 2)
        ]
        table = bops(fcs, (1, 2, 4), weight_bits=4, activation_bits=4)
        for tie in (None, *Tie):
            tied_table = table.tied(tied(fcs, tie))
            allocation = {name: (1, 2, 4)[i % 3] for i, name in enumerate(tied_table.layers)}
            assert tied_table.of(allocation) == table.of(tied_table.expand(allocation))
            assert tied_table.minimum == table.minimum
            assert tied_table.ungrouped == table.ungrouped
        assert list(table.tied(tied(fcs, Tie.BLOCK)).layers) == ["blocks.0", "blocks.1"]
        assert list(table.tied(tied(fcs, Tie.KIND)).layers) == ["fc1", "fc2"]
