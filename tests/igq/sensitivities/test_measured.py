"""Sensitivity: how far predictions move when one layer alone is quantized (Eq. 9)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import Candidates, InvalidArgumentError, Setting
from igq.evaluation import evaluate
from igq.quantized import assemble
from igq.sensitivities import sensitivity_passes
from tests.makers import FITTED, groups

Table = dict[str, dict[Setting, float]]


@pytest.fixture(scope="module")
def table(vit: nn.Module, candidates: Candidates, images: Tensor) -> Table:
    return igq.sensitivity(vit, candidates, images)


def test_it_has_every_grouped_layer_and_number_of_groups(vit: nn.Module, table: Table) -> None:
    assert list(table) == [layer.name for layer in igq.grouped(igq.layers(vit))]
    assert all(list(row) == [*map(groups, (1, 2, 4))] for row in table.values())


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv", "blocks.1.attn.softmax", "blocks.1.mlp.fc2"])
def test_a_sensitivity_is_the_kl_of_the_model_in_which_that_layer_alone_is_quantized(
    vit: nn.Module,
    candidates: Candidates,
    images: Tensor,
    table: Table,
    name: str,
) -> None:
    for setting, found in table[name].items():
        alone = assemble(vit, {name: candidates.quantizers[name][setting.num_groups]}, {})
        expected = evaluate(alone, images, reference=vit).kl
        assert expected > 0
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_does_not_matter(
    vit: nn.Module,
    candidates: Candidates,
    images: Tensor,
    table: Table,
    batch_size: int,
) -> None:
    again = igq.sensitivity(vit, candidates, images, batch_size=batch_size)
    for name, row in table.items():
        assert again[name] == pytest.approx(row, rel=1e-2, abs=1e-5)


def test_more_bits_lose_less(vit: nn.Module, images: Tensor, ranges: igq.Ranges) -> None:
    totals = []
    for bits in (8, 4, 2):
        found = igq.sensitivity(vit, igq.fit(ranges, (1,), bits), images)
        totals.append(sum(row[groups(1)] for row in found.values()))
    assert totals == sorted(totals)


def test_progress_is_told_up_to_1(vit: nn.Module, candidates: Candidates, images: Tensor) -> None:
    told: list[float] = []
    igq.sensitivity(vit, candidates, images, batch_size=4, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) == 2 * 10 * 3  # batches, layers, numbers of groups


def test_sensitivities_of_a_bf16_model_are_computed_in_fp32(
    make_vit: Callable[..., nn.Module], images: Tensor
) -> None:
    vit, images = make_vit().bfloat16(), images.bfloat16()
    candidates = igq.fit(igq.observe(vit, images, FITTED), (1,), bits=4)
    found = igq.sensitivity(vit, candidates, images)
    name = "blocks.1.mlp.fc2"
    alone = assemble(vit, {name: candidates.quantizers[name][1]}, {})
    assert found[name][groups(1)] == pytest.approx(
        evaluate(alone, images, reference=vit).kl, rel=1e-4
    )


def test_the_table_is_the_same_on_a_gpu(
    make_vit: Callable[..., nn.Module],
    candidates: Candidates,
    images: Tensor,
    table: Table,
    device: torch.device,
) -> None:
    there = igq.sensitivity(make_vit().to(device), candidates, images)
    for name, row in table.items():
        assert there[name] == pytest.approx(row, rel=0.05, abs=1e-3)


def test_no_images_are_refused(vit: nn.Module, candidates: Candidates) -> None:
    message = r"^sensitivity needs at least 1 image, but got 0\.$"
    with pytest.raises(InvalidArgumentError, match=message):
        igq.sensitivity(vit, candidates, torch.zeros(0, 1, 8, 8))


def test_its_compute_counts_only_the_part_of_a_pass_that_is_run(
    vit: nn.Module, candidates: Candidates
) -> None:
    grouped = [layer for layer in candidates.layers if layer.grouped]
    counts = len(candidates.num_groups)
    whole = 8 * (1 + len(grouped) * counts)
    few = sensitivity_passes(vit, candidates.layers, counts, images=8)
    assert 8 < few < whole
    assert sensitivity_passes(vit, candidates.layers, counts, images=16) == 2 * few
