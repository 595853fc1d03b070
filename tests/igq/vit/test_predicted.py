"""Every kind of model can have its harms predicted from gradients."""

from torch import Tensor, nn

import igq


def test_variants_are_predicted_as_well(variant: nn.Module, its_images: Tensor) -> None:
    candidates = igq.fit(igq.observe(variant, its_images), (2,), bits=4)
    harm = igq.predicted_sensitivity(variant, candidates, its_images, draws=1)
    grouped = [layer.name for layer in candidates.layers if layer.grouped]
    assert list(harm) == grouped
    assert all(row[2] > 0 for row in harm.values())
