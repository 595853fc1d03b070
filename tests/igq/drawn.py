"""Ranges and activations at random, and quantizers fitted to them."""

from collections.abc import Mapping, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from igq import Assignment, GroupQuantizer
from igq.grouping import Channels

SEEDS = st.integers(0, 10_000)


def random_ranges(seed: int, images: int = 4, slices: int = 12) -> Tensor:
    """Ranges of slices whose widths differ by orders of magnitude, as in a ViT."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randn(images, slices, 2, generator=generator)
    widths = torch.randn(slices, 1, generator=generator).exp()
    return (ends * widths).sort(dim=-1).values


def random_activation(seed: int, shape: tuple[int, ...] = (2, 5, 12)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(shape, generator=generator) * torch.randn(shape[-1:], generator=generator).exp()
    )


def fit_all(
    ranges: Tensor,
    num_groups: Sequence[int],
    bits: int = 4,
    assignment: Assignment = Assignment.NEAREST,
) -> Mapping[int, GroupQuantizer]:
    fitted = Channels(assignment).fit(ranges, num_groups, bits)
    return {g: q for g, q in fitted.items() if isinstance(q, GroupQuantizer)}


def fit_one(
    ranges: Tensor, num_groups: int, bits: int = 4, assignment: Assignment = Assignment.NEAREST
) -> GroupQuantizer:
    return fit_all(ranges, [num_groups], bits, assignment)[num_groups]
