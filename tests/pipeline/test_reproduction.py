from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import Corrected
from igq.vit import assemble
from pipeline import reproduction
from pipeline.errors import DataError
from pipeline.published import COLUMNS, PUBLISHED
from pipeline.reports import reproduction_table
from pipeline.reproduction import Experiment, reproduce
from search_spaces import Assignment, InputMethod, Rotation, SoftmaxMethod, WeightMethod
from tests.pipeline.test_reports import text


def quiet(name: str) -> Callable[[float], None]:
    return lambda share: None


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

    def test_every_column_has_a_share_for_each_seed(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, bits=(6,), seeds=2, most_images=40)
        cells = list(reproduce(experiment, quiet))
        assert [(cell.label, cell.bits, cell.column) for cell in cells] == [
            ("DeiT-T", 6, column) for column in COLUMNS
        ]
        assert {(len(cell.kept), cell.images) for cell in cells} == {(2, 40)}
        printed = text(reproduction_table(cells))
        assert "W6A6" in printed
        assert "(0.979)" in printed

    def test_calibration_images_are_kept_out_of_the_evaluation(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, (6,), ("fixed 8",), seeds=3)
        (cell,) = reproduce(experiment, quiet)
        assert cell.images == 797 - 3 * reproduction.CALIBRATION_IMAGES

    @pytest.mark.parametrize("method", WeightMethod)
    def test_weights_are_corrected_for_each_seed_if_wanted(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, method: WeightMethod
    ) -> None:
        seen: list[Tensor] = []

        def correct(
            model: nn.Module, candidates: Any, images: Tensor, *rest: Any, **more: Any
        ) -> Any:
            seen.append(images)
            return Corrected(model, igq.vit.quantize_weights(model, *rest))

        monkeypatch.setattr(igq, "correct", correct)
        settings = ("digits",), "digits", folder, (6,), ("fixed 8", "upper bound"), 2, 40
        assert len(list(reproduce(Experiment(*settings, weight_method=method), quiet))) == 2
        assert len(seen) == (2 if method is WeightMethod.CORRECTED else 0)
        assert not seen or not torch.equal(*seen)

    @pytest.mark.parametrize(
        ("method", "slices"),
        [
            (SoftmaxMethod.ROWS, igq.Slices.ROWS),
            (SoftmaxMethod.UNIT_ROWS, igq.Slices.UNIT_ROWS),
            (SoftmaxMethod.KEYS, igq.Slices.KEY_GROUPS),
        ],
    )
    def test_softmax_maps_are_sliced_as_wanted(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        method: SoftmaxMethod,
        slices: igq.Slices,
    ) -> None:
        seen: set[igq.Slices] = set()

        def assembled(model: nn.Module, quantizers: Any, weights: Any) -> nn.Module:
            seen.update(q.slices for name, q in quantizers.items() if name.endswith("softmax"))
            return assemble(model, quantizers, weights)

        monkeypatch.setattr(reproduction, "assemble", assembled)
        settings = ("digits",), "digits", folder, (6,), ("fixed 8", "upper bound"), 1, 40
        list(reproduce(Experiment(*settings, softmax_method=method), quiet))
        assert seen == {slices}

    @pytest.mark.parametrize("method", InputMethod)
    @pytest.mark.parametrize("rotation", Rotation)
    def test_linear_inputs_are_as_wanted(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        method: InputMethod,
        rotation: Rotation,
    ) -> None:
        seen: set[tuple[igq.Slices, bool]] = set()

        def assembled(model: nn.Module, quantizers: Any, weights: Any) -> nn.Module:
            turned = {layer.name: layer.rotated for layer in igq.layers(model)}
            places = {n: n.rpartition(".")[2] for n in quantizers}
            seen.update((q.slices, turned[n]) for n, q in quantizers.items() if places[n] == "fc1")
            return assemble(model, quantizers, weights)

        monkeypatch.setattr(reproduction, "assemble", assembled)
        settings = ("digits",), "digits", folder, (6,), ("fixed 8", "upper bound"), 1, 40
        made = Experiment(*settings, input_method=method, rotation=rotation)
        assert len(list(reproduce(made, quiet))) == 2
        slices = {"channels": igq.Slices.CHANNELS, "tokens": igq.Slices.TOKEN_GROUPS}[method.value]
        assert seen == {(slices, rotation is not Rotation.NONE)}

    @pytest.mark.parametrize("assignment", Assignment)
    def test_channels_pick_their_groups_as_wanted(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, assignment: Assignment
    ) -> None:
        seen: set[str] = set()

        def assembled(model: nn.Module, quantizers: Any, weights: Any) -> nn.Module:
            seen.update(q.assignment.value for n, q in quantizers.items() if n.endswith("fc1"))
            return assemble(model, quantizers, weights)

        monkeypatch.setattr(reproduction, "assemble", assembled)
        settings = ("digits",), "digits", folder, (6,), ("fixed 8",), 1, 40
        list(reproduce(Experiment(*settings, assignment=assignment), quiet))
        assert seen == {assignment.value}

    def test_the_same_experiment_gives_the_same_numbers(self, folder: Path) -> None:
        experiment = Experiment(
            ("digits",), "digits", folder, (4,), ("allocated 8",), seeds=1, most_images=20
        )
        assert list(reproduce(experiment, quiet)) == list(reproduce(experiment, quiet))

    def test_an_unknown_column_is_refused(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, columns=("fixed 9",))
        with pytest.raises(igq.InvalidArgumentError, match=r"must be among .*, but got 'fixed 9'"):
            next(reproduce(experiment, quiet))

    def test_other_bits_are_refused(self, folder: Path) -> None:
        experiment = Experiment(("digits",), "digits", folder, bits=(5,))
        with pytest.raises(igq.InvalidArgumentError, match=r"among \[4, 6\].*got \[5\]"):
            next(reproduce(experiment, quiet))

    def test_a_folder_without_weights_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"must hold one of vit_tiny_patch16_224\.safetensors"):
            next(reproduce(Experiment(("digits",), "digits", tmp_path), quiet))


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
    cells = list(reproduce(experiment, quiet))
    assert [cell.label for cell in cells] == ["ViT-T", "DeiT-T"]
    assert all(cell.full_precision > 0.7 for cell in cells)
    assert all(cell.mean > 0.85 for cell in cells)
