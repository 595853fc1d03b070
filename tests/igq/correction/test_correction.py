"""Weights corrected on calibration images: nearer to full precision, and kept as any others are."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import Candidates, Corrected, InvalidArgumentError, UnsupportedModelError
from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.rounding import output_error
from igq.correction import correction_passes, grams, vectors
from igq.quantized import assemble, quantize_weights
from igq.scheme import TUNING_STEPS
from igq.vit import stages


@pytest.fixture(scope="module")
def rounded(vit: nn.Module, candidates: Candidates, images: Tensor) -> Corrected:
    return igq.correct(vit, candidates, images, 4, steps=0)


@pytest.fixture(scope="module")
def corrected(vit: nn.Module, candidates: Candidates, images: Tensor) -> Corrected:
    return igq.correct(vit, candidates, images, 4, steps=TUNING_STEPS)


def with_groups(made: Corrected, candidates: Candidates, num_groups: int) -> nn.Module:
    chosen = candidates.select(igq.uniform(candidates.layers, num_groups))
    return made.quantize(chosen)


def same(first: Mapping[str, QuantizedTensor], second: Mapping[str, QuantizedTensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(w.dequantize(), second[name].dequantize()) for name, w in first.items()
    )


@torch.no_grad()
def distance(full: nn.Module, made: nn.Module, images: Tensor) -> float:
    """How far blocks' outputs are from full precision's, relative to each token's own."""
    x = y = images
    total = 0.0
    for reference, stage in zip(stages(full), stages(made), strict=True):
        x, y = reference(x), stage(y)
        total += ((y - x) / x.square().mean(-1, keepdim=True).sqrt()).square().mean().item()
    return total


class TestRounding:
    def test_no_layer_errs_more_than_with_the_nearest_codes(
        self, vit: nn.Module, candidates: Candidates, images: Tensor, rounded: Corrected
    ) -> None:
        chosen = candidates.select(igq.uniform(candidates.layers, 2))
        nearest = quantize_weights(vit, 4)
        for name, gram in grams(vit, chosen, images, seed=0).items():
            weight = vit.get_parameter(f"{name}.weight").flatten(1)
            damped = gram + 0.1 * gram.diagonal().mean() * torch.eye(len(gram))
            ours, theirs = (
                output_error(weight, replace(w, codes=w.codes.flatten(1)), damped)
                for w in (rounded.weights[name], nearest[name])
            )
            assert (ours <= theirs * (1 + 1e-5)).all()

    def test_without_steps_nothing_but_weights_differs(
        self, vit: nn.Module, rounded: Corrected
    ) -> None:
        kept = vectors(rounded.model)
        assert all(torch.equal(p, kept[name]) for name, p in vectors(vit).items())
        assert not same(rounded.weights, quantize_weights(vit, 4))

    def test_the_patch_embedding_and_each_linear_layer_in_a_block_have_a_gram_matrix_of_inputs(
        self, vit: nn.Module, candidates: Candidates, images: Tensor
    ) -> None:
        found = grams(vit, candidates.select(igq.uniform(candidates.layers, 2)), images, seed=0)
        weighted = {la.name: la.channels for la in candidates.layers if la.weighted}
        del weighted["head"]
        assert {name: len(gram) for name, gram in found.items()} == weighted
        for gram in found.values():
            torch.testing.assert_close(gram, gram.T, rtol=1e-5, atol=1e-3)
            assert torch.linalg.eigvalsh(gram).min() > -1e-3 * gram.diagonal().max()

    def test_the_patch_embedding_s_inputs_are_its_patches(
        self,
        vit: nn.Module,
        candidates: Candidates,
        images: Tensor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("igq.correction.gram.UNIFORM_SHARE", 1.0)  # no token counts more
        chosen = candidates.select(igq.uniform(candidates.layers, 2))
        found = grams(vit, chosen, images, seed=0)["patch_embed.proj"]
        codes = chosen["patch_embed.proj"](images)  # 2 x 2 pixels of 8 x 8
        pixels = codes.unflatten(2, (4, 2)).unflatten(4, (4, 2)).permute(0, 2, 4, 1, 3, 5)
        patches = pixels.flatten(3).flatten(0, 2)
        torch.testing.assert_close(found.float(), patches.T @ patches, rtol=1e-4, atol=1e-3)


class TestTuning:
    @pytest.mark.slow
    def test_blocks_come_nearer_to_full_precision(
        self,
        vit: nn.Module,
        candidates: Candidates,
        images: Tensor,
        rounded: Corrected,
        corrected: Corrected,
    ) -> None:
        before = distance(vit, with_groups(rounded, candidates, 2), images)
        after = distance(vit, with_groups(corrected, candidates, 2), images)
        assert after < 0.95 * before

    @pytest.mark.slow
    def test_codes_stay_as_they_were_rounded(
        self, rounded: Corrected, corrected: Corrected
    ) -> None:
        for name, weight in corrected.weights.items():
            assert torch.equal(weight.codes, rounded.weights[name].codes)
            assert torch.equal(weight.zero_point, rounded.weights[name].zero_point)
            assert (weight.scale > 0).all()

    @pytest.mark.slow
    def test_only_what_has_one_dimension_moves(self, vit: nn.Module, corrected: Corrected) -> None:
        moved = {
            name
            for name, p in corrected.model.named_parameters()
            if not torch.equal(p, vit.get_parameter(name))
        }
        assert moved == set(vectors(vit))


def test_the_same_images_and_seed_give_the_same(
    vit: nn.Module, candidates: Candidates, images: Tensor
) -> None:
    first, second = (igq.correct(vit, candidates, images, 4, steps=3) for _ in range(2))
    assert same(first.weights, second.weights)
    assert all(torch.equal(p, vectors(second.model)[n]) for n, p in vectors(first.model).items())


def test_progress_is_told_from_beginning_to_end(
    vit: nn.Module, candidates: Candidates, images: Tensor
) -> None:
    told: list[float] = []
    igq.correct(vit, candidates, images, 4, steps=3, progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.slow
def test_an_artifact_keeps_what_was_corrected(
    corrected: Corrected, candidates: Candidates, images: Tensor, tmp_path: Path
) -> None:
    made = with_groups(corrected, candidates, 2)
    read = igq.load(igq.save(made, tmp_path / "artifact")).model
    assert torch.equal(read(images), made(images))


@pytest.mark.slow
def test_gradients_are_off_in_what_is_given_back(corrected: Corrected) -> None:
    assert not any(p.requires_grad for p in corrected.model.parameters())
    assert not any(w.scale.requires_grad for w in corrected.weights.values())


def test_bad_input_is_refused(vit: nn.Module, candidates: Candidates, images: Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match="weight_bits"):
        igq.correct(vit, candidates, images, 1)
    with pytest.raises(InvalidArgumentError, match="`steps` must be 0 or more, but got -1"):
        igq.correct(vit, candidates, images, 4, steps=-1)
    with pytest.raises(InvalidArgumentError, match="at least 1 calibration image"):
        igq.correct(vit, candidates, images[:0], 4)


def test_a_quantized_model_is_refused(
    quantized: nn.Module, candidates: Candidates, images: Tensor
) -> None:
    with pytest.raises(UnsupportedModelError, match="full precision"):
        igq.correct(quantized, candidates, images, 4)


def test_cpu_and_gpu_correct_alike(
    candidates: Candidates, images: Tensor, device: torch.device, vit: nn.Module
) -> None:

    made = igq.correct(copy.deepcopy(vit).to(device), candidates, images, 4, steps=1)
    assert next(made.model.parameters()).device.type == device.type
    assert assemble(made.model, {}, made.weights)(images.to(device)).isfinite().all()


class TestMemory:
    """Less memory takes more passes, and gives the same weights."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("igq.correction.gram.MEMORY", 1),  # the layers one by one
            ("igq.correction.discrepancy.KEPT", 0),  # full-precision outputs in every step
            ("igq.correction.discrepancy.ACTIVATIONS", 0),  # activations twice
        ],
    )
    def test_weights_are_the_same(
        self,
        vit: nn.Module,
        candidates: Candidates,
        images: Tensor,
        monkeypatch: pytest.MonkeyPatch,
        place: str,
        value: int,
    ) -> None:
        expected = igq.correct(vit, candidates, images, 4, steps=3)
        monkeypatch.setattr(place, value)
        found = igq.correct(vit, candidates, images, 4, steps=3)
        for name, weight in expected.weights.items():
            assert torch.equal(found.weights[name].codes, weight.codes)
            assert torch.allclose(found.weights[name].scale, weight.scale, rtol=1e-5)
        for name, vector in vectors(expected.model).items():
            there = dict(found.model.named_parameters())[name]
            assert torch.allclose(there, vector, rtol=1e-4, atol=1e-6)


def test_its_cost_is_that_of_the_passes_that_it_makes(
    vit: nn.Module, candidates: Candidates, images: Tensor
) -> None:
    """Counted at the patch embedding: of the full-precision model and of quantized ones."""
    seen = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal seen
        seen += len(output)

    hook = nn.modules.module.register_module_forward_hook(
        lambda m, i, o: count(m, i, o) if isinstance(m, (nn.Conv2d, igq.modules.Conv2d)) else None
    )
    try:
        igq.correct(vit, candidates, images, 4, steps=5)
    finally:
        hook.remove()
    batch = min(8, len(images))
    assert seen == len(images) + len(images) + 5 * batch  # rounding, targets, tuning
    assert correction_passes(len(images), 5) == 3 * len(images) + len(images) + 15 * batch
