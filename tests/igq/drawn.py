"""Ranges and activations at random, and what is fitted to them."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from igq import GroupQuantizer, Slices, fit_groups

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


def fit_one(ranges: Tensor, num_groups: int, bits: int = 4) -> GroupQuantizer:
    return fit_groups(ranges, [num_groups], bits, Slices.CHANNELS)[num_groups]
