"""Bits chosen together with groups: the sensitivity of settings, from that of their parts."""

import pytest
from torch import Tensor, nn

import igq
from igq import Candidates, Limit, Limits, Options, Setting, Tie
from igq.allocation import uniform_allocations
from igq.costs import bops_table, tie_layers
from igq.quantized import quantize_weights
from igq.sensitivities import composed_sensitivity, measure_parts, parts_passes
from tests.makers import FITTED, bops_of

OPTIONS = Options((3, 4, 6), (4, 6), (2, 4))


def test_operands_of_a_product_share_their_bits(vit: nn.Module) -> None:
    names = tie_layers(igq.layers(vit), OPTIONS)
    attention = "blocks.0.attn"
    assert names[f"{attention}.q"] == (f"{attention}.q", f"{attention}.k")
    assert names[f"{attention}.softmax"] == (f"{attention}.softmax", f"{attention}.v")
    members = [name for shared_by in names.values() for name in shared_by]
    assert sorted(members) == sorted(layer.name for layer in igq.layers(vit))


@pytest.mark.parametrize("tie", [None, *Tie])
@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("groups", OPTIONS.num_groups)
def test_a_uniform_setting_costs_what_groups_alone_cost(
    vit: nn.Module, tie: Tie | None, bits: int, groups: int
) -> None:
    listed = igq.layers(vit)
    plain = bops_of(listed, (groups,), (bits, bits), FITTED)
    table = bops_table(listed, FITTED, OPTIONS, (bits, bits), tie)
    same = [table.of(allocation) for allocation in uniform_allocations(table)]
    assert plain.of(igq.uniform(listed, groups)) in same
    assert table.plain == plain.plain


def test_uniform_allocations_begin_with_the_cheapest(vit: nn.Module) -> None:
    table = bops_table(igq.layers(vit), FITTED, OPTIONS, (4, 4))
    found = uniform_allocations(table)
    assert table.of(found[0]) == table.minimum
    assert sorted(map(table.of, found)) == list(map(table.of, found))


class TestSensitivity:
    @pytest.fixture
    def parts(
        self, vit: nn.Module, candidates: Candidates, images: Tensor
    ) -> dict[str, dict[str, float]]:
        weights = {bits: quantize_weights(vit, bits) for bits in OPTIONS.weight_bits}
        return measure_parts(vit, candidates, weights, OPTIONS, images)

    def test_more_bits_lose_less(self, parts: dict[str, dict[str, float]]) -> None:
        total = {part: sum(row.get(part, 0.0) for row in parts.values()) for part in ("w3", "w6")}
        assert total["w6"] < total["w3"]

    def test_every_setting_has_one_and_the_ilp_takes_it(
        self, vit: nn.Module, parts: dict[str, dict[str, float]]
    ) -> None:
        table = bops_table(igq.layers(vit), FITTED, OPTIONS, (4, 4))
        sensitivity = composed_sensitivity(
            tie_layers(igq.layers(vit), OPTIONS), table, parts, OPTIONS
        )
        assert {n: set(row) for n, row in sensitivity.items()} == {
            n: set(row) for n, row in table.layers.items()
        }
        chosen = igq.allocate(sensitivity, Limits((Limit(table, table.minimum),)))
        assert table.of(chosen) == table.minimum
        assert str(chosen["blocks.0.attn.qkv"]) == "w3a4g2"

    def test_a_setting_of_what_was_measured_is_the_sum_of_it(
        self, vit: nn.Module, parts: dict[str, dict[str, float]]
    ) -> None:
        table = bops_table(igq.layers(vit), FITTED, OPTIONS, (4, 4))
        row = parts["blocks.0.attn.qkv"]
        ties = tie_layers(igq.layers(vit), OPTIONS)
        found = composed_sensitivity(ties, table, parts, OPTIONS)["blocks.0.attn.qkv"]
        reference = OPTIONS.num_groups[len(OPTIONS.num_groups) // 2]
        assert found[Setting(3, 6, reference)] == pytest.approx(row["w3"] + row["a6"])

    def test_its_compute_is_parts_of_passes(self, vit: nn.Module) -> None:
        measured = parts_passes(vit, igq.layers(vit), OPTIONS, images=4)
        assert 4 < measured < 4 * (1 + 7 * len(igq.layers(vit)))
