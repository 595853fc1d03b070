"""The cache: a value is the same when it is read back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

import igq
from igq import Candidates, Layer, Options
from igq.grouping import Quantizer
from pipeline.errors import StudyError
from pipeline.preparation.parts import cache
from pipeline.preparation.parts.cache import (
    load_candidates,
    load_corrected,
    load_sensitivity,
    save_candidates,
    save_corrected,
    save_sensitivity,
)
from pipeline.study.definition import fingerprint
from tests.makers import FITTED, settings_of

GROUPS = (1, 2)
OPTIONS = Options((4,), (4,), GROUPS)


@pytest.fixture(scope="module")
def listed(model: nn.Module) -> tuple[Layer, ...]:
    return igq.layers(model)


@pytest.fixture(scope="module")
def candidates(model: nn.Module) -> Candidates:
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return igq.fit(igq.observe(model, images, FITTED), GROUPS, bits=4)


def same(first: Quantizer, second: Quantizer) -> bool:
    """Whether two quantizers are equal, tensors bit for bit."""
    ours, theirs = vars(first), vars(second)
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name])
        if isinstance(value, torch.Tensor)
        else value == theirs[name]
        for name, value in ours.items()
    )


def test_candidates_are_the_same_bit_for_bit(
    tmp_path: Path, candidates: Candidates, listed: tuple[Layer, ...]
) -> None:
    save_candidates(tmp_path / "cache" / "candidates.safetensors", candidates)
    again = load_candidates(tmp_path / "cache" / "candidates.safetensors", listed, FITTED, OPTIONS)
    assert again.layers == candidates.layers
    assert (again.num_groups, again.bits) == (candidates.num_groups, candidates.bits)
    assert again.scheme == candidates.scheme
    assert again.quantizers.keys() == candidates.quantizers.keys()
    for name, fitted in candidates.quantizers.items():
        assert again.quantizers[name].keys() == fitted.keys()
        for groups, quantizer in fitted.items():
            assert same(again.quantizers[name][groups], quantizer)


def test_corrected_weights_are_the_same_bit_for_bit(
    tmp_path: Path, model: nn.Module, candidates: Candidates
) -> None:
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made = igq.correct(model, candidates, images, weight_bits=4, steps=2)
    save_corrected(tmp_path / "weights.safetensors", made)
    again = load_corrected(tmp_path / "weights.safetensors", model, bits=4)
    assert fingerprint(again.model) == fingerprint(made.model) != fingerprint(model)
    assert again.weights.keys() == made.weights.keys()
    for name, weight in made.weights.items():
        read = again.weights[name]
        assert (read.bits, read.codes.dtype) == (weight.bits, weight.codes.dtype)
        assert torch.equal(read.dequantize(), weight.dequantize())


@pytest.mark.parametrize("content", [None, b"", "of another model"])
def test_a_file_without_corrected_weights_is_refused(
    tmp_path: Path, model: nn.Module, candidates: Candidates, content: bytes | str | None
) -> None:
    path = tmp_path / "weights.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_candidates(path, candidates)
    with pytest.raises(StudyError, match=r"must (hold corrected weights|be as it was written)"):
        load_corrected(path, model, bits=4)


def test_nothing_but_the_candidates_stays(tmp_path: Path, candidates: Candidates) -> None:
    save_candidates(tmp_path / "candidates.safetensors", candidates)
    assert [path.name for path in tmp_path.iterdir()] == ["candidates.safetensors"]


def test_candidates_of_other_numbers_of_groups_are_refused(
    tmp_path: Path, candidates: Candidates, listed: tuple[Layer, ...]
) -> None:
    path = tmp_path / "candidates.safetensors"
    save_candidates(path, candidates)
    with pytest.raises(StudyError, match="must hold the study's candidates"):
        load_candidates(path, listed, FITTED, replace(OPTIONS, num_groups=(1, 2, 4)))


@pytest.mark.parametrize("content", [None, b"", b"damaged"], ids=["missing", "empty", "damaged"])
def test_a_file_without_candidates_is_refused(
    tmp_path: Path, listed: tuple[Layer, ...], content: bytes | None
) -> None:
    path = tmp_path / "candidates.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match=f"^{path} must be as it was written"):
        load_candidates(path, listed, FITTED, OPTIONS)


def test_candidates_cannot_be_written_below_a_file(tmp_path: Path, candidates: Candidates) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="must be writable"):
        save_candidates(tmp_path / "file" / "cache" / "candidates.safetensors", candidates)


def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(cache, "save_file", full)
    with pytest.raises(StudyError, match=r"must be writable, but is not: .*No space left"):
        save_candidates(tmp_path / "candidates.safetensors", candidates)
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_sensitivities_is_the_same(tmp_path: Path) -> None:
    table = settings_of({"fc1": {1: 0.1, 2: 1 / 3}, "fc2": {1: 0.0, 2: -1e-9}})
    save_sensitivity(tmp_path / "harm.json", table)
    assert load_sensitivity(tmp_path / "harm.json") == table


@pytest.mark.parametrize("content", ["[1]", '{"fc1": 3}', '{"fc1": {"two": 3}}'])
def test_a_file_without_sensitivities_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "harm.json").write_text(content)
    with pytest.raises(StudyError, match=r"harm\.json"):
        load_sensitivity(tmp_path / "harm.json")
