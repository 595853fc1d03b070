"""The size that is computed is that of what is stored, in every family."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import igq
from igq import Options
from igq.costs import size_table

BITS = 4


def test_it_is_the_size_of_what_an_artifact_holds_with_its_codes_packed(
    variant: nn.Module, its_images: Tensor, tmp_path: Path
) -> None:
    parameters = sum(parameter.numel() for parameter in variant.parameters())
    table = size_table(igq.layers(variant), Options((BITS,), (4,), (2,)), parameters)
    candidates = igq.fit(igq.observe(variant, its_images), num_groups=(2, 4), bits=4)
    chosen = candidates.select(igq.uniform(candidates.layers, 2))
    path = igq.save(igq.quantize(variant, chosen, BITS), tmp_path / "artifact")
    stored = load_file(path / "model.safetensors")
    counted = {name: t for name, t in stored.items() if not name.startswith("activations.")}
    assert {t.dtype for n, t in counted.items() if not n.endswith(".codes")} == {torch.float32}
    assert table.minimum == sum(t.nbytes for t in counted.values())
