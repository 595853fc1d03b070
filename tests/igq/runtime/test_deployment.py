"""Whole models on the runtime's operators."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import igq
from igq.quantized import assemble
from igq.runtime import operators, reference
from igq.runtime.deployment import DeployedBlock, DeployedLinear, deploy
from tests.igq.variants import SUPPORTED


def agreement(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("scheme", [igq.Scheme.BEST, igq.Scheme.PAPER], ids=["best", "paper"])
def test_every_kind_of_model_predicts_the_same(
    name: str,
    scheme: igq.Scheme,
    make: Callable[[str], nn.Module],
    noise_for: Callable[[nn.Module], Tensor],
) -> None:
    vit = make(name)
    images = noise_for(vit)
    candidates = igq.fit(igq.observe(vit, images, scheme), (2,), bits=8)
    quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 2)), 8)
    with torch.inference_mode():
        assert agreement(deploy(quantized)(images), quantized(images)) < 0.05


class TestDeploy:
    def test_blocks_become_operators_and_the_original_stays(
        self, quantized: nn.Module, images: Tensor
    ) -> None:
        before = quantized(images)
        deployed = deploy(quantized)
        assert all(isinstance(block, DeployedBlock) for block in deployed.blocks)
        assert isinstance(deployed.head, DeployedLinear)
        assert torch.equal(quantized(images), before)
        assert not list(deployed.blocks.parameters())  # panels hold everything

    def test_a_layer_that_is_not_quantized_is_named(self, vit: nn.Module) -> None:
        with pytest.raises(igq.UnsupportedModelError, match=r"but blocks.0.attn.q is not"):
            deploy(assemble(vit, {}, {}))

    def test_it_can_be_exported_by_torch(self, quantized: nn.Module, images: Tensor) -> None:
        deployed = deploy(quantized)
        exported = torch.export.export(deployed, (images,))
        names = {str(n.target) for n in exported.graph.nodes if "igq" in str(n.target)}
        assert names == {"igq.linear.default", "igq.self_attention.default"}
        assert torch.equal(exported.module()(images), deployed(images))

    def test_without_the_library_it_computes_the_same_and_says_that_it_is_slow(
        self, quantized: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deployed = deploy(quantized)
        expected = deployed(images)
        monkeypatch.setattr(operators, "library", lambda: None)
        operators._say_slow.cache_clear()
        with pytest.warns(UserWarning, match="compiled runtime is not installed"):
            made = deployed(images)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            deployed(images)  # said once
        assert agreement(made, expected) < 0.3  # 4 bits: a code on a border moves
        one, held = deployed.blocks[0].fc2, torch.randn(2, 17, 48)
        torch.testing.assert_close(
            one(held), reference.linear(held, one.panel, one.out_features), atol=1e-4, rtol=1e-4
        )
