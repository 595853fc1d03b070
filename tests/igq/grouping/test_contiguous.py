"""Contiguous groups, each with its own range."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from igq.arithmetic.affine import affine_parameters, fake_quantize
from igq.grouping import ContiguousChannels, SliceQuantizer
from igq.grouping.contiguous import (
    contiguous_groups,
    fake_quantize_contiguous,
    num_cells,
)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def written_down(x: Tensor, num_groups: int, bits: int) -> Tensor:
    """Token by token, group by group."""
    channels = x.shape[-1]
    cells = num_cells(channels)
    width = -(-cells // num_groups) * -(-channels // cells)
    parts = [
        fake_quantize(part, *affine_parameters(part.min(), part.max(), bits), bits)
        for row in x.reshape(-1, channels)
        for part in row.split(width)
    ]
    return torch.cat(parts).view(x.shape)


@pytest.mark.parametrize("channels", [216, 264, 768])
def test_cells_of_any_width_have_their_own_extremes(channels: int) -> None:
    x = noise(2, 3, channels)
    assert torch.equal(fake_quantize_contiguous(x, 24, 4), written_down(x, 24, 4))


@pytest.mark.slow
@given(channels=st.integers(1, 100), groups=st.integers(1, 40), bits=st.sampled_from([2, 4, 8]))
def test_it_is_what_one_would_write_down(channels: int, groups: int, bits: int) -> None:
    x = noise(2, 3, channels)
    assert torch.equal(fake_quantize_contiguous(x, groups, bits), written_down(x, groups, bits))


@given(channels=st.integers(1, 4096), groups=st.integers(1, 64))
def test_there_are_no_more_groups_than_wanted_nor_than_cells(channels: int, groups: int) -> None:
    assert 1 <= contiguous_groups(channels, groups) <= min(groups, num_cells(channels))


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 8, 12, 24])
def test_these_numbers_of_groups_are_kept_exactly_where_24_divides_the_channels(
    groups: int,
) -> None:
    assert {contiguous_groups(channels, groups) for channels in (192, 384, 768, 3072)} == {groups}


@pytest.mark.parametrize(
    ("length", "cells"),
    [(192, 24), (1024, 32), (196, 28), (50, 25), (197, 22), (577, 24), (49, 17), (444, 12)],
)
def test_cells_divide_the_length_or_the_last_is_shorter(length: int, cells: int) -> None:
    assert num_cells(length) == cells


@given(length=st.integers(1, 4096))
def test_every_cell_holds_something(length: int) -> None:
    cells = num_cells(length)
    assert min(length, 12) <= cells <= 32
    assert (cells - 1) * -(-length // cells) < length


def test_a_row_is_one_group_where_no_number_is_given() -> None:
    x = noise(2, 3, 48)
    kind = ContiguousChannels()
    assert torch.equal(kind.quantize_own_ranges(x, 4), kind.quantize_own_ranges(x, 4, 1))
    assert SliceQuantizer(4, kind) == SliceQuantizer(4, kind, 1)


def test_more_groups_are_nearer() -> None:
    x = noise(4, 9, 192) * torch.linspace(0.1, 5, 192)
    errors = [(fake_quantize_contiguous(x, g, 4) - x).square().mean() for g in (1, 2, 4, 8, 24)]
    assert errors == sorted(errors, reverse=True)


def test_a_huge_value_harms_its_own_token_and_group_alone() -> None:
    x = noise(1, 4, 48)
    wild = x.clone()
    wild[0, 1, 5] = 1000.0
    changed = fake_quantize_contiguous(wild, 4, 4) != fake_quantize_contiguous(x, 4, 4)
    assert changed.nonzero()[:, 1].unique().tolist() == [1]
    assert changed.nonzero()[:, 2].max() < 12


def test_quantizing_twice_changes_nothing() -> None:
    once = fake_quantize_contiguous(noise(3, 5, 24), 3, 4)
    torch.testing.assert_close(fake_quantize_contiguous(once, 3, 4), once)


def test_what_leaves_0_out_is_widened_to_hold_it() -> None:
    x = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(fake_quantize_contiguous(x, 1, 2), torch.tensor([[8 / 3, 4.0]]))


@pytest.mark.parametrize("groups", [1, 5, 24])
def test_cpu_and_gpu_agree(device: torch.device, groups: int) -> None:
    x = noise(2, 5, 192)
    there = fake_quantize_contiguous(x.to(device), groups, 4).cpu()
    torch.testing.assert_close(there, fake_quantize_contiguous(x, groups, 4))
