"""The authors' table, and ours beside it."""

import io
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import igq
from igq import (
    Assignment,
    Corrected,
    InputMethod,
    Kind,
    Rotation,
    Scheme,
    SoftmaxMethod,
    WeightMethod,
    grouping_of,
)
from igq.quantized import accelerate, quantize_weights, quantizers, rotated_layers
from pipeline.errors import DataError
from pipeline.science.published import COLUMNS, PUBLISHED
from pipeline.science.reproduction import CALIBRATION_IMAGES, Experiment, reproduce
from pipeline.science.tables import reproduction_table
from pipeline.study.progress import SilentDisplay

QUIET = SilentDisplay()


@pytest.mark.parametrize(
    ("label", "bits", "shares"),
    [
        ("ViT-T", 4, (0.722, 0.738, 0.763)),
        ("ViT-T", 6, (0.966, 0.976, 0.989)),
        ("DeiT-T", 4, (0.858, 0.863, 0.866)),
        ("DeiT-T", 6, (0.979, 0.984, 0.989)),
    ],
)
def test_the_authors_shares_follow_from_their_table(
    label: str, bits: int, shares: tuple[float, ...]
) -> None:
    (row,) = (row for row in PUBLISHED if row.label == label)
    kept = [row.kept(bits, column) for column in COLUMNS[:3]]
    # the last digit of some is cut off, not rounded
    assert kept == pytest.approx(shares, abs=1e-3)


class TestReproduce:
    @pytest.fixture
    def folder(self, tmp_path: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with the weights of one of the nine, which is as small as the tests' model."""
        (tmp_path / "deit_tiny_patch16_224.safetensors").touch()
        monkeypatch.setattr(igq, "create", lambda name, arguments, weights: model)
        return tmp_path

    @pytest.mark.slow
    def test_every_column_has_a_share_for_each_seed(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, bits=(6,), seeds=2, most_images=40)
        cells = list(reproduce(experiment, QUIET))
        assert [(cell.label, cell.bits, cell.column) for cell in cells] == [
            ("DeiT-T", 6, column) for column in COLUMNS
        ]
        assert {(len(cell.kept), cell.images) for cell in cells} == {(2, 40)}
        console = Console(file=io.StringIO(), width=200)
        console.print(reproduction_table(cells))
        printed = console.file.getvalue()
        assert "W6A6" in printed
        assert "(0.979)" in printed

    @pytest.mark.slow
    def test_calibration_images_are_kept_out_of_the_evaluation(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, (6,), ("fixed 8",), seeds=3)
        (cell,) = reproduce(experiment, QUIET)
        assert cell.images == 797 - 3 * CALIBRATION_IMAGES

    @pytest.mark.parametrize("method", WeightMethod)
    def test_weights_are_corrected_for_each_seed_if_wanted(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, method: WeightMethod
    ) -> None:
        seen: list[Tensor] = []

        def correct(
            model: nn.Module, candidates: Any, images: Tensor, bits: int, progress: Any
        ) -> Corrected:
            seen.append(images)
            return Corrected(model, quantize_weights(model, bits))

        monkeypatch.setattr(igq, "correct", correct)
        list(reproduce(self.short(folder, replace(Scheme.PAPER, weights=method)), QUIET))
        assert len(seen) == (2 if method is WeightMethod.CORRECTED else 0)
        assert not seen or not torch.equal(*seen)

    @pytest.mark.parametrize(
        "scheme",
        [
            *(replace(Scheme.PAPER, softmax=softmax) for softmax in SoftmaxMethod),
            *(replace(Scheme.PAPER, inputs=i, rotation=r) for i in InputMethod for r in Rotation),
            *(replace(Scheme.PAPER, assignment=assignment) for assignment in Assignment),
        ],
        ids=lambda scheme: "-".join(astuple(scheme)),
    )
    def test_every_column_is_quantized_as_the_scheme_says(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, scheme: Scheme
    ) -> None:
        seen: list[nn.Module] = []

        def accelerated(model: nn.Module, *given: Any) -> nn.Module:
            seen.append(model)
            return accelerate(model, *given)

        monkeypatch.setattr("pipeline.science.reproduction.accelerate", accelerated)
        list(reproduce(replace(self.short(folder, scheme), seeds=1), QUIET))
        assert len(seen) == 2
        for model in seen:
            held = quantizers(model)
            for layer in igq.layers(model):
                assert held[layer.name].grouping == grouping_of(layer, scheme)
            wide = [
                la.name
                for la in igq.layers(model)
                if la.kind is Kind.LINEAR and scheme.rotation.includes(la.channels, la.outputs)
            ]
            assert rotated_layers(model) == wide

    @staticmethod
    def short(folder: Path, scheme: Scheme) -> Experiment:
        columns = ("fixed 8", "upper bound")
        return Experiment(("digits",), "digits", folder, (6,), columns, 2, 40, scheme=scheme)

    @pytest.mark.slow
    def test_the_same_experiment_gives_the_same_numbers(self, folder: Path) -> None:
        experiment = Experiment(
            ("digits",), "digits", folder, (4,), ("allocated 8",), seeds=1, most_images=20
        )
        assert list(reproduce(experiment, QUIET)) == list(reproduce(experiment, QUIET))

    def test_an_unknown_column_is_refused(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, columns=("fixed 9",))
        with pytest.raises(igq.InvalidArgumentError, match=r"must be among .*, but got 'fixed 9'"):
            next(reproduce(experiment, QUIET))

    def test_at_3_bits_other_methods_stand_beside(self, folder: Path) -> None:
        experiment = Experiment(
            ("digits",), "digits", folder, (3,), ("fixed 8",), seeds=1, most_images=20
        )
        cells = list(reproduce(experiment, QUIET))
        assert [(cell.bits, cell.published) for cell in cells] == [(3, None)]
        console = Console(file=io.StringIO(), width=200)
        console.print(reproduction_table(cells))
        printed = " ".join(console.file.getvalue().split())
        assert "W3A3" in printed
        assert "FIMA-Q keeps 0.769 of DeiT-T at W3A3: weights optimised on 1,024 images" in printed
        assert "APHQ-ViT keeps 0.767 of DeiT-T at W3A3" in printed
        assert "0.926" not in printed

    def test_other_bits_are_refused(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, bits=(5,))
        with pytest.raises(igq.InvalidArgumentError, match=r"among \[3, 4, 6\].*got \[5\]"):
            next(reproduce(experiment, QUIET))

    def test_a_folder_without_weights_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"must hold one of vit_tiny_patch16_224\.safetensors"):
            next(reproduce(Experiment(("digits",), "digits", tmp_path), QUIET))


@pytest.mark.slow
def test_real_weights_keep_most_of_their_accuracy_at_6_bits(assets: Path) -> None:
    experiment = Experiment(
        (str(assets / "images" / "nips17"),),
        str(assets / "images" / "train1000"),
        assets / "weights",
        bits=(6,),
        columns=("fixed 8",),
        seeds=1,
        most_images=32,
    )
    cells = list(reproduce(experiment, QUIET))
    assert [cell.label for cell in cells] == ["ViT-T", "DeiT-T"]
    assert all(cell.full_precision > 0.7 for cell in cells)
    assert all(cell.mean > 0.85 for cell in cells)
