"""Every layer fitted for every number of groups."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import (
    Assignment,
    Candidates,
    GroupQuantizer,
    InvalidArgumentError,
    Kind,
    Ranges,
    Setting,
    SliceQuantizer,
    SoftmaxMethod,
    grouping_of,
)
from igq.quantized import bounds, with_bounds
from tests.makers import FITTED, groups


def assert_same_bounds(one: Candidates, other: Candidates) -> None:
    expected = bounds(other)
    assert bounds(one).keys() == expected.keys()
    assert all(torch.equal(fitted, expected[name]) for name, fitted in bounds(one).items())


def test_grouped_layers_have_every_number_of_groups_and_the_others_one(
    candidates: Candidates,
) -> None:
    for layer in candidates.layers:
        expected = [1, 2, 4] if layer.grouped else [1]
        assert list(candidates.quantizers[layer.name]) == expected


def test_a_quantizer_has_the_groups_and_bits_asked_for(candidates: Candidates) -> None:
    for layer in candidates.layers:
        for g, quantizer in candidates.quantizers[layer.name].items():
            assert isinstance(quantizer, SliceQuantizer) or quantizer.num_groups == g
            assert quantizer.bits == (8 if layer.name == "patch_embed.proj" else 4)
            assert quantizer.grouping == grouping_of(layer, candidates.scheme)


def test_select_takes_each_layer_s_own_number_of_groups(candidates: Candidates) -> None:
    names = [layer.name for layer in candidates.layers if layer.grouped]
    allocation = {name: groups((1, 2, 4)[i % 3]) for i, name in enumerate(names)}
    chosen = candidates.select(allocation)
    assert chosen.keys() == {layer.name for layer in candidates.layers}
    assert chosen.scheme is candidates.scheme
    for name, setting in allocation.items():
        assert chosen[name] is candidates.quantizers[name][setting.num_groups]


def test_a_setting_with_bits_changes_the_bits_alone(candidates: Candidates) -> None:
    layer = next(la for la in candidates.layers if la.name == "blocks.0.mlp.fc1")
    one, other = (candidates.one(layer, Setting(4, bits, 2)) for bits in (4, 6))
    assert isinstance(one, GroupQuantizer)
    assert isinstance(other, GroupQuantizer)
    assert (one.bits, other.bits) == (4, 6)
    assert torch.equal(one.upper, other.upper)


def test_fitting_again_gives_the_same(ranges: Ranges, candidates: Candidates) -> None:
    assert_same_bounds(igq.fit(ranges, (1, 2, 4), bits=4), candidates)


def test_bounds_that_were_stored_make_the_same_candidates(candidates: Candidates) -> None:
    stored = bounds(candidates)
    assert stored["blocks.0.mlp.fc1/4"].shape == (4, 2)
    again = with_bounds(candidates.layers, FITTED, (1, 2, 4), 4, stored)
    assert_same_bounds(again, candidates)
    for name, fitted in candidates.quantizers.items():
        bits = {g: quantizer.bits for g, quantizer in fitted.items()}
        assert {g: q.bits for g, q in again.quantizers[name].items()} == bits


def test_bounds_that_are_missing_are_named(candidates: Candidates) -> None:
    stored = bounds(candidates)
    del stored["blocks.0.mlp.fc1/4"]
    with pytest.raises(KeyError, match=r"blocks\.0\.mlp\.fc1/4"):
        with_bounds(candidates.layers, FITTED, (1, 2, 4), 4, stored)


def test_q_k_v_and_the_classifier_s_input_have_ranges_of_their_own(candidates: Candidates) -> None:
    own = [n for n, q in candidates.quantizers.items() if isinstance(q[1], SliceQuantizer)]
    assert own == [f"blocks.{i}.attn.{operand}" for i in range(2) for operand in "qkv"] + ["head"]


def test_softmax_rows_are_quantized_as_they_were_observed(vit: nn.Module, images: Tensor) -> None:
    for method in SoftmaxMethod:
        scheme = replace(FITTED, softmax=method)
        fitted = igq.fit(igq.observe(vit, images, scheme), (2,), bits=4)
        quantizer = fitted.quantizers["blocks.0.attn.softmax"][2]
        sums = quantizer(torch.rand(1, 3, 17, 17).softmax(-1)).sum(-1)
        kept = torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
        assert kept is (method is not SoftmaxMethod.ROWS)


@pytest.mark.parametrize("assignment", Assignment)
def test_channels_pick_their_groups_as_they_were_observed(
    vit: nn.Module, images: Tensor, assignment: Assignment
) -> None:
    fitted = igq.fit(igq.observe(vit, images, replace(FITTED, assignment=assignment)), (2,), bits=4)
    stored = with_bounds(fitted.layers, fitted.scheme, (2,), 4, bounds(fitted))
    for candidates in (fitted, stored):
        chosen = candidates.select(igq.uniform(candidates.layers, 2))
        for layer in candidates.layers:
            quantizer = chosen[layer.name]
            if layer.kind is Kind.LINEAR:
                assert isinstance(quantizer, GroupQuantizer)
                assert quantizer.grouping.assignment is assignment


def test_progress_is_told_up_to_1(ranges: Ranges) -> None:
    told: list[float] = []
    igq.fit(ranges, (1,), bits=4, progress=told.append)
    assert told == sorted(told)
    assert len(told) == len(ranges.layers)
    assert told[-1] == 1


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda a: a.pop("blocks.0.mlp.fc1"), "blocks.0.mlp.fc1"),
        (lambda a: a.update({"blocks.9.mlp.fc1": groups(1)}), "blocks.9.mlp.fc1"),
        (lambda a: a.update({"head": groups(1)}), "head"),
    ],
    ids=["missing", "unknown", "not-grouped"],
)
def test_an_allocation_of_other_layers_is_refused(
    candidates: Candidates, change: object, odd: str
) -> None:
    allocation = dict(igq.uniform(candidates.layers, 2))
    change(allocation)
    with pytest.raises(InvalidArgumentError) as raised:
        candidates.select(allocation)
    assert str(raised.value) == (
        f"`allocation` must name each of the 10 layers once, but differs in {odd}."
    )


def test_a_number_of_groups_that_was_not_fitted_is_refused(candidates: Candidates) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        candidates.select(igq.uniform(candidates.layers, 3))
    assert str(raised.value) == (
        "`num_groups` must be one of [1, 2, 4], but got 3 for blocks.0.attn.qkv."
    )


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_out_of_range_are_refused(ranges: Ranges, bits: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"between 2 and 8, but got bits={bits}"):
        igq.fit(ranges, (1,), bits=bits)


@pytest.mark.parametrize("num_groups", [(), (0,)], ids=str)
def test_numbers_of_groups_out_of_range_are_refused(
    ranges: Ranges, num_groups: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidArgumentError, match="`num_groups` must be one or more"):
        igq.fit(ranges, num_groups, bits=4)


def test_images_that_are_not_finite_are_refused(vit: torch.nn.Module, images: torch.Tensor) -> None:
    odd = images.clone()
    odd[0, 0, 0, 0] = float("nan")
    with pytest.raises(InvalidArgumentError, match="`images` must be finite"):
        igq.observe(vit, odd, FITTED)
