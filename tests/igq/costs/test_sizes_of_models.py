"""The size that is computed is that of what is stored, in every family."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import igq
from igq import Options
from igq.costs import size_table
from igq.quantized import assemble, quantize_weights

BITS = 4


def test_it_is_the_size_of_what_an_artifact_holds_with_its_codes_packed(
    variant: nn.Module, tmp_path: Path
) -> None:
    parameters = sum(parameter.numel() for parameter in variant.parameters())
    table = size_table(igq.layers(variant), Options((BITS,), (4,), (2,)), parameters)
    quantized = assemble(variant, {}, quantize_weights(variant, BITS))
    path = igq.save(quantized, tmp_path / "artifact")
    stored = load_file(path / "model.safetensors")
    codes = sum(-(-t.numel() * BITS // 8) for n, t in stored.items() if n.endswith(".codes"))
    rest = sum(t.nbytes for n, t in stored.items() if not n.endswith(".codes"))
    assert {t.dtype for n, t in stored.items() if not n.endswith(".codes")} == {torch.float32}
    assert table.minimum == codes + rest
