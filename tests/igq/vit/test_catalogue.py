"""Which of timm's models are supported, and why the others are not."""

import resource

import pytest
import timm
import torch

from igq.vit import catalogue, supported_models
from igq.vit.catalogue import why_unsupported

MODULES = ("deit", "swin_transformer", "beit")


@pytest.fixture(scope="module")
def reasons() -> dict[str, str | None]:
    """Of some modules: all of them take a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "MODULES", MODULES)
        patch.setattr(catalogue, "recorded", dict)
        return dict(supported_models())


@pytest.mark.slow
def test_every_model_of_a_module_is_there(reasons: dict[str, str | None]) -> None:
    assert list(reasons) == [name for module in MODULES for name in timm.list_models(module=module)]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_these_are_supported(reasons: dict[str, str | None], module: str) -> None:
    assert {reasons[name] for name in timm.list_models(module=module)} == {None}


def test_modules_are_timm_s() -> None:
    assert all(timm.list_models(module=module) for module in catalogue.MODULES)


@pytest.mark.parametrize("name", ["vit_7b_patch16_dinov3", "vit_5b_patch16_sapiens2"])
def test_a_model_of_many_gigabytes_is_not_allocated(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert why_unsupported(name) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB


def test_models_without_a_classifier_are_tried_with_one() -> None:
    with torch.device("meta"):
        assert timm.create_model("vit_small_patch14_dinov2").num_classes == 0
    assert why_unsupported("vit_small_patch14_dinov2") is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_base_patch16_siglip_224", "attn_pool must be None, but is a AttentionPoolLatent."),
        (
            "swinv2_tiny_window8_256",
            "the model must be a timm VisionTransformer, VisionTransformerDistilled, "
            "SwinTransformer, Beit or Eva, but got a SwinTransformerV2.",
        ),
        (
            "vit_base_patch16_xp_224",
            "blocks.0 must be a Block or ResPostBlock, but is a ParallelScalingBlock.",
        ),
        ("vit_small_r26_s32_224", "patch_embed must be a PatchEmbed, but is a HybridEmbed."),
    ],
)
def test_the_part_that_is_not_supported_is_named(name: str, reason: str) -> None:
    assert why_unsupported(name) == reason


@pytest.mark.skipif(not catalogue.recorded(), reason="recorded with another version of timm")
class TestRecorded:
    """`python -m tests.golden.make_catalogue` records it again."""

    def test_every_model_of_every_module_is_there(self) -> None:
        expected = {n for module in catalogue.MODULES for n in timm.list_models(module=module)}
        assert catalogue.recorded().keys() == expected

    @pytest.mark.slow
    def test_it_is_what_trying_finds(self, reasons: dict[str, str | None]) -> None:
        assert {name: catalogue.recorded()[name] for name in reasons} == reasons

    def test_a_pattern_chooses(self) -> None:
        found = dict(supported_models("deit_tiny*"))
        assert found == {"deit_tiny_distilled_patch16_224": None, "deit_tiny_patch16_224": None}
