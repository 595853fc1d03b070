"""Published ImageNet top-1 in percent: the authors' table (Moon et al., CVPR 2024), and others."""

from collections.abc import Mapping
from dataclasses import dataclass

COLUMNS = ("fixed 8", "fixed 12", "upper bound", "allocated 8", "allocated 12")
"""Groups in every layer, one quantizer for each slice, and allocated within the same BOPs."""


@dataclass(frozen=True)
class Published:
    """One model's row."""

    label: str
    model: str
    """The checkpoint's name in timm."""
    full_precision: float
    top1: Mapping[int, tuple[float, ...]]
    """Bits of weights and activations -> top-1 in each of `COLUMNS`."""

    @property
    def architecture(self) -> str:
        """The checkpoint's name without its tag."""
        return self.model.partition(".")[0]

    def kept(self, bits: int, column: str) -> float | None:
        """Return the share of full precision's top-1 that is kept; None where none is published."""
        if bits not in self.top1:
            return None
        return self.top1[bits][COLUMNS.index(column)] / self.full_precision


@dataclass(frozen=True)
class Other:
    """The top-1 of another method with the same checkpoint, and what the method takes."""

    method: str
    label: str
    bits: int
    """Of weights and activations."""
    kept: float
    """The share of full precision's top-1."""
    takes: str


PUBLISHED = (
    Published(
        "ViT-T",
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        75.47,
        {4: (54.46, 55.66, 57.59, 55.29, 56.01), 6: (72.90, 73.63, 74.61, 73.19, 73.77)},
    ),
    Published(
        "ViT-S",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        81.39,
        {4: (72.99, 73.46, 74.73, 73.18, 73.61), 6: (80.07, 80.66, 80.99, 80.48, 80.76)},
    ),
    Published(
        "ViT-B",
        "vit_base_patch16_224.augreg_in21k_ft_in1k",
        84.54,
        {4: (77.91, 79.13, 79.88, 78.28, 79.32), 6: (83.11, 83.63, 84.27, 83.46, 83.77)},
    ),
    Published(
        "DeiT-T",
        "deit_tiny_patch16_224.fb_in1k",
        72.21,
        {4: (61.94, 62.28, 62.55, 62.25, 62.45), 6: (70.71, 71.02, 71.42, 70.92, 71.15)},
    ),
    Published(
        "DeiT-S",
        "deit_small_patch16_224.fb_in1k",
        79.85,
        {4: (74.01, 74.52, 75.08, 74.23, 74.66), 6: (78.92, 79.17, 79.42, 79.04, 79.28)},
    ),
    Published(
        "DeiT-B",
        "deit_base_patch16_224.fb_in1k",
        81.80,
        {4: (78.85, 79.21, 79.74, 79.04, 79.23), 6: (81.34, 81.48, 81.75, 81.44, 81.71)},
    ),
    Published(
        "Swin-T",
        "swin_tiny_patch4_window7_224.ms_in1k",
        81.39,
        {4: (76.91, 77.53, 78.58, 77.19, 77.77), 6: (80.23, 80.59, 81.20, 80.48, 80.89)},
    ),
    Published(
        "Swin-S",
        "swin_small_patch4_window7_224.ms_in1k",
        83.23,
        {4: (80.54, 80.79, 81.48, 80.66, 80.98), 6: (82.55, 82.66, 83.08, 82.65, 82.86)},
    ),
    Published(
        "Swin-B",
        "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
        85.27,
        {4: (82.88, 83.08, 83.53, 83.02, 83.14), 6: (84.43, 84.70, 85.06, 84.62, 84.82)},
    ),
)

_RECONSTRUCTED = "weights optimised on 1,024 images, static ranges"
_DEIT_T = 72.21

OTHERS = (
    Other("FIMA-Q", "DeiT-T", 3, 55.55 / _DEIT_T, _RECONSTRUCTED),
    Other("APHQ-ViT", "DeiT-T", 3, 55.42 / _DEIT_T, _RECONSTRUCTED),
    Other("FIMA-Q", "DeiT-T", 4, 66.84 / _DEIT_T, _RECONSTRUCTED),
    Other("APHQ-ViT", "DeiT-T", 4, 66.66 / _DEIT_T, _RECONSTRUCTED),
)
"""FIMA-Q (CVPR 2025) and APHQ-ViT (CVPR 2025)."""

BITS = tuple(sorted({*PUBLISHED[0].top1, *(other.bits for other in OTHERS)}))
"""Bits of weights and activations with published numbers of any method."""
