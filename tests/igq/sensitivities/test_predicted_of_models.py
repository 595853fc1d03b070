"""Every kind of model can have its sensitivity predicted from gradients."""

from torch import Tensor, nn

import igq
from tests.makers import FITTED, groups


def test_variants_are_predicted_as_well(variant: nn.Module, its_images: Tensor) -> None:
    candidates = igq.fit(igq.observe(variant, its_images, FITTED), (2,), bits=4)
    found = igq.predicted_sensitivity(variant, candidates, its_images, draws=1)
    grouped = [layer.name for layer in candidates.layers if layer.grouped]
    assert list(found) == grouped
    assert all(row[groups(2)] > 0 for row in found.values())
