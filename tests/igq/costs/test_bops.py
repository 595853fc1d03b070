"""Bit operations of an allocation, and the part that grouping adds (Table 1)."""

from dataclasses import replace
from functools import cache

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

import igq
from igq import (
    Assignment,
    InputMethod,
    InvalidArgumentError,
    Kind,
    Layer,
    Options,
    Rotation,
    Scheme,
    Setting,
    SoftmaxMethod,
    Tie,
    layers,
)
from igq.costs import bops_table, tie_layers
from igq.costs.bops import grouping_bops, plain_bops, product_bops, setting_bops
from igq.grouping import grouping_of
from tests.makers import alike, bops_of, groups

FC = Layer("fc", Kind.LINEAR, tokens=3, channels=4, outputs=5)
WIDE = replace(FC, channels=48)
SOFTMAX = Layer("softmax", Kind.SOFTMAX, tokens=6, channels=3, outputs=2)
QUERIES = Layer("q", Kind.QUERY, tokens=6, channels=2, outputs=3, heads=2)
PATCHES = Layer("patches", Kind.EMBEDDING, tokens=3, channels=4, outputs=5, bits=8)
MODEL = (PATCHES, FC, QUERIES, SOFTMAX)

PAPER = Scheme.PAPER
TOKENS = replace(PAPER, inputs=InputMethod.TOKENS)


def constant(layer: Layer, scheme: Scheme = PAPER) -> int:
    return grouping_of(layer, scheme).constant_bops(layer)


class TestClosedForm:
    def test_a_product_with_a_weight_costs_both_widths(self) -> None:
        assert product_bops(FC, weight_bits=4, activation_bits=6) == 3 * 4 * 5 * 4 * 6

    def test_a_product_of_activations_costs_the_activations_width_twice(self) -> None:
        assert product_bops(SOFTMAX, weight_bits=4, activation_bits=6) == 6 * 3 * 2 * 6 * 6

    def test_a_layer_of_fixed_bits_costs_those(self) -> None:
        assert product_bops(PATCHES, weight_bits=4, activation_bits=6) == 3 * 4 * 5 * 4 * 8

    def test_grouped_channels_add_ranges_distances_and_sums(self) -> None:
        ranges, distances, sums = 2 * 3 * 4, 4 * 4 * 8, 7 * 3 * 5
        assert grouping_bops(FC, PAPER, 8) == 32 * (ranges + distances + sums)

    def test_channels_that_pick_by_expected_error_take_more_operations_for_each_group(self) -> None:
        picking = replace(PAPER, assignment=Assignment.LEAST_ERROR)
        assert grouping_bops(FC, picking, 8) - grouping_bops(FC, PAPER, 8) == 32 * (16 - 4) * 4 * 8
        assert grouping_bops(FC, picking, 1) == 0

    def test_grouped_rows_add_ranges_and_distances_but_no_sums(self) -> None:
        assert grouping_bops(SOFTMAX, PAPER, 8) == 32 * (6 * 3 + 4 * 6 * 8)

    @pytest.mark.parametrize(("number", "real"), [(1, 1), (4, 4), (5, 5), (7, 6), (99, 24)])
    def test_contiguous_groups_add_ranges_and_as_many_sums_as_there_are(
        self, number: int, real: int
    ) -> None:
        ranges, sums = 2 * 3 * 48, real * 3 * 5
        assert grouping_bops(WIDE, TOKENS, number) == 32 * (ranges + sums)
        assert constant(WIDE, TOKENS) == 0

    @pytest.mark.parametrize("scheme", [PAPER, TOKENS], ids=["channels", "tokens"])
    @pytest.mark.parametrize("number", [1, 8])
    def test_a_rotation_costs_the_additions_of_a_fast_transform(
        self, scheme: Scheme, number: int
    ) -> None:
        turned = replace(scheme, rotation=Rotation.ALL)
        added = grouping_bops(WIDE, turned, number) - grouping_bops(WIDE, scheme, number)
        assert added == 32 * 3 * 48 * 4  # blocks of 16 channels

    def test_only_layers_that_the_rotation_names_pay_for_it(self) -> None:
        wide = replace(PAPER, rotation=Rotation.WIDE)
        assert grouping_bops(WIDE, wide, 8) == grouping_bops(WIDE, PAPER, 8)  # 48 to 5
        assert grouping_bops(SOFTMAX, wide, 8) == grouping_bops(SOFTMAX, PAPER, 8)
        wider = replace(WIDE, outputs=96)
        assert grouping_bops(wider, wide, 8) > grouping_bops(wider, PAPER, 8)

    @pytest.mark.parametrize("layer", [FC, SOFTMAX], ids=lambda layer: layer.name)
    def test_one_group_adds_nothing(self, layer: Layer) -> None:
        assert grouping_bops(layer, PAPER, 1) == 0

    @pytest.mark.parametrize("layer", [PATCHES, QUERIES], ids=lambda layer: layer.name)
    def test_a_layer_that_is_not_grouped_has_no_groups(self, layer: Layer) -> None:
        with pytest.raises(InvalidArgumentError, match=f"{layer.name} has no groups to choose"):
            grouping_bops(layer, PAPER, 2)

    def test_ranges_of_q_k_and_v_are_taken_in_every_image_and_scores_scaled(self) -> None:
        assert constant(QUERIES) == 32 * (2 * 6 * 2 + 6 * 3)
        assert constant(replace(QUERIES, kind=Kind.KEY, outputs=0)) == 32 * 2 * 6 * 2
        assert constant(FC) == constant(SOFTMAX) == constant(PATCHES) == 0

    def test_rows_that_keep_their_sum_need_it_and_the_mean_of_v(self) -> None:
        kept = replace(PAPER, softmax=SoftmaxMethod.UNIT_ROWS)
        sums, mean, product = 6 * 3, 6 * 2, 2 * 6 * 2
        assert constant(SOFTMAX, kept) == 32 * (sums + mean + product)
        assert grouping_bops(SOFTMAX, kept, 8) == grouping_bops(SOFTMAX, PAPER, 8)

    def test_keys_in_groups_need_a_maximum_and_as_many_sums(self) -> None:
        keys, scheme = replace(SOFTMAX, channels=197), replace(PAPER, softmax=SoftmaxMethod.KEYS)
        for number, real in ((1, 1), (8, 8), (24, 22)):  # 197 keys are 22 cells
            assert grouping_bops(keys, scheme, number) == 32 * (6 * 197 + real * 6 * 2)
        assert constant(keys, scheme) == 32 * (6 * 197 + 3 * 6 * 2)


class TestTable:
    TABLE = bops_of(MODEL, (1, 2, 4))

    def test_an_allocation_costs_the_sum_of_its_layers(self) -> None:
        products = sum(product_bops(layer, 4, 4) for layer in MODEL)
        grouping = grouping_bops(FC, PAPER, 4) + grouping_bops(SOFTMAX, PAPER, 2)
        expected = products + grouping + constant(QUERIES)
        assert self.TABLE.of({"fc": groups(4), "softmax": groups(2)}) == expected

    def test_overhead_is_measured_against_one_group_everywhere(self) -> None:
        table = bops_of(MODEL, (2, 4))
        assert table.plain == self.TABLE.minimum
        assert table.overhead(self.TABLE.minimum) == 0
        assert table.overhead(2 * self.TABLE.minimum) == 1

    @pytest.mark.parametrize("name", ["weight_bits", "activation_bits"])
    @pytest.mark.parametrize("value", [1, 9])
    def test_bits_out_of_range_are_named(self, name: str, value: int) -> None:
        bits = (value, 4) if name == "weight_bits" else (4, value)
        with pytest.raises(InvalidArgumentError, match=f"but got {name}={value}"):
            bops_of(MODEL, (1, 2), bits)

    @pytest.mark.parametrize(
        ("base", "named"), [((9, 4), "weight_bits=9"), ((4, 1), "activation_bits=1")]
    )
    def test_a_base_out_of_range_is_named(self, base: tuple[int, int], named: str) -> None:
        with pytest.raises(InvalidArgumentError, match=f"but got {named}"):
            bops_table(MODEL, PAPER, Options((4,), (4,), (1, 2)), base)

    @pytest.mark.parametrize("num_groups", [(), (0,)], ids=str)
    def test_numbers_of_groups_out_of_range_are_refused(self, num_groups: tuple[int]) -> None:
        with pytest.raises(InvalidArgumentError, match="`num_groups` must be one or more"):
            bops_of(MODEL, num_groups)

    @given(smaller=st.tuples(*[st.integers(1, 15)] * 2), more=st.tuples(*[st.integers(0, 15)] * 2))
    def test_more_groups_never_cost_less(
        self, smaller: tuple[int, int], more: tuple[int, int]
    ) -> None:
        table = bops_of(MODEL, range(1, 31))
        few = dict(zip(("fc", "softmax"), smaller, strict=True))
        many = {name: groups(g + m) for (name, g), m in zip(few.items(), more, strict=True)}
        assert table.of({name: groups(g) for name, g in few.items()}) <= table.of(many)

    def test_with_bits_every_layer_costs_its_own_bits_and_groups(self) -> None:
        table = bops_table(MODEL, PAPER, Options((3, 8), (4, 6), (1, 4)), (4, 4))
        setting = Setting(8, 6, 4)
        expected = product_bops(FC, 8, 6) + grouping_bops(FC, PAPER, 4)
        assert table.cost("fc", setting) == expected
        assert table.cost("patches", Setting(weight_bits=3)) == product_bops(PATCHES, 3, 8)
        queries = product_bops(QUERIES, 4, 6) + constant(QUERIES)
        assert table.cost("q", Setting(activation_bits=6)) == queries
        assert table.plain == sum(plain_bops(layer, PAPER, (4, 4)) for layer in MODEL)
        assert table.fixed == 0

    @pytest.mark.parametrize(
        ("setting", "bits", "number"),
        [
            (Setting(), (3, 6), 1),
            (Setting(num_groups=4), (3, 6), 4),
            (Setting(weight_bits=5), (5, 6), 1),
            (Setting(activation_bits=7, num_groups=2), (3, 7), 2),
        ],
        ids=str,
    )
    def test_parts_that_a_setting_leaves_open_are_the_base_s_and_one_group(
        self, setting: Setting, bits: tuple[int, int], number: int
    ) -> None:
        expected = product_bops(FC, *bits) + grouping_bops(FC, PAPER, number)
        assert setting_bops(FC, setting, PAPER, (3, 6)) == expected

    @pytest.mark.parametrize("base", [None, (5, 7)])
    def test_layers_that_are_not_chosen_for_have_the_bits_of_the_base_or_the_first(
        self, base: tuple[int, int] | None
    ) -> None:
        table = bops_table(MODEL, PAPER, Options((3,), (6,), (1, 4)), base)
        plain = [plain_bops(layer, PAPER, base or (3, 6)) for layer in MODEL]
        assert table.plain == sum(plain)
        assert table.fixed == plain[0] + plain[2]  # neither patches nor queries are in groups
        assert table.cost("fc", groups(1)) == plain[1]

    def test_the_bops_of_candidates_are_those_of_their_scheme(
        self, candidates: igq.Candidates
    ) -> None:
        listed, scheme = candidates.layers, candidates.scheme
        assert igq.bops(candidates, weight_bits=3) == bops_of(listed, (1, 2, 4), (3, 4), scheme)


@cache
def blocks_of(name: str) -> tuple[Layer, ...]:
    """The layers of a timm model's blocks (on `meta`: nothing is computed)."""
    with torch.device("meta"):
        model = timm.create_model(name)
    return tuple(layer for layer in layers(model) if layer.name.startswith("blocks."))


def overhead_of_linears(blocks: tuple[Layer, ...], num_groups: int, bits: int) -> float:
    """In percent: what grouping adds at the linear layers, over all products of the blocks.

    Counted above the line: 32 [2 N C + 4 C G + (G - 1) N D] of qkv, proj, fc1 and fc2; nothing
    for softmax maps. Below it: those four products and both of attention (q k, softmax v), but
    neither patch embedding nor head. So the paper's figures come out.
    """
    added = sum(grouping_bops(layer, PAPER, num_groups) for layer in blocks if layer.weighted)
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
    table = bops_of(blocks, (16,))
    percent = 100 * table.overhead(table.of(igq.uniform(blocks, 16)))
    assert percent == pytest.approx(overhead_of_linears(blocks, 16, bits=4), abs=0.1)
    assert percent > overhead_of_linears(blocks, 16, bits=4)


class TestTied:
    def test_a_tie_costs_the_sum_of_its_layers(self) -> None:
        fcs = [
            Layer(f"blocks.{i}.fc{j}", Kind.LINEAR, 2 + i, 3, 5 + j) for i in (0, 1) for j in (1, 2)
        ]
        table, options = bops_of(fcs, (1, 2, 4)), Options((4,), (4,), (1, 2, 4))
        for tie in (None, *Tie):
            tied = bops_of(fcs, (1, 2, 4), tie=tie)
            allocation = {name: groups((1, 2, 4)[i % 3]) for i, name in enumerate(tied.layers)}
            expanded = tie_layers(fcs, options, tie).expand(allocation)
            assert tied.of(allocation) == table.of(expanded)
            assert tied.minimum == table.minimum
            assert tied.plain == table.plain
        assert list(bops_of(fcs, (1, 2), tie=Tie.BLOCK).layers) == ["blocks.0", "blocks.1"]
        assert list(bops_of(fcs, (1, 2), tie=Tie.KIND).layers) == ["fc1", "fc2"]
        assert alike(["fc1"], 2)["fc1"] == groups(2)
