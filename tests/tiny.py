"""The arguments of the smallest vision transformers that tests use."""

from typing import Any

NAME = "vit_tiny_patch16_224"
TINY: dict[str, Any] = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
}
"""Two blocks of width 12, for digits."""
