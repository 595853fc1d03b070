"""The memory that phases take, by counts alone."""

from dataclasses import replace

import pytest

import igq
from pipeline.preparation.costs.memory import Load, memory

IMAGE = 4 * 3 * 224**2
LOAD = Load(search=128, calibration=32, image_bytes=IMAGE, chunk=16)
GIB = 2**30


def layers_of(width: int, depth: int, heads: int) -> tuple[tuple[igq.Layer, ...], int]:
    arguments = {"embed_dim": width, "depth": depth, "num_heads": heads}
    model = igq.create("vit_tiny_patch16_224", arguments)
    return igq.layers(model), sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
def test_larger_models_take_more_and_fit_the_machines_that_they_are_meant_for() -> None:
    tiny = memory(*layers_of(192, 12, 3), LOAD)
    base = memory(*layers_of(768, 12, 12), LOAD)
    assert tiny.most < 4 * GIB
    assert tiny.trials < base.trials < 4 * GIB
    assert tiny.correction < base.correction < 8 * GIB
    large = memory(*layers_of(1024, 24, 16), LOAD)
    assert base.correction < large.correction < 16 * GIB
    assert base.trials < large.trials < 6 * GIB


@pytest.mark.slow
def test_statements_are_near_what_was_measured() -> None:
    """Of 4 blocks as wide as ViT-B, 8 images (docs/reports/0041-correction-cost.md)."""
    arguments = layers_of(768, 4, 12)
    stated = memory(*arguments, replace(LOAD, search=8, calibration=8, chunk=1))
    assert 1 / 1.3 < stated.correction / (2.45 * GIB) < 1.3


def test_more_images_and_bits_take_more() -> None:
    found = layers_of(48, 2, 3)
    one = memory(*found, LOAD)
    more = memory(*found, replace(LOAD, search=256))
    assert more.trials - one.trials == 128 * IMAGE
    assert memory(*found, replace(LOAD, weight_bits=3)).trials - one.trials == 2 * found[1]
