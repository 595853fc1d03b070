"""An exported model answers with the classes that its own predictions say, under their names."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import igq
from igq import ArtifactError
from pipeline.classifier import open_classifier
from pipeline.data import Preprocessing
from pipeline.errors import DataError
from tests.artifacts import digits_artifact, digits_notes


def test_probabilities_are_those_of_the_model(tmp_path: Path, model: nn.Module) -> None:
    path = digits_artifact(tmp_path / "art", model)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = igq.deploy(igq.load(path).model)(images).softmax(-1)
    classifier = open_classifier(path)
    assert classifier.deployed
    assert torch.equal(classifier.probabilities(images), expected)


def test_guesses_are_in_order_and_no_more_than_there_are(tmp_path: Path, model: nn.Module) -> None:
    names = ["zero", "same", "same", *map(str, range(3, 10))]
    classifier = open_classifier(digits_artifact(tmp_path / "art", model, {"classes": names}))
    found = classifier.guesses(torch.tensor([0.0, 0.3, 0.5, *[0.2 / 7] * 7]), 20)
    assert [guess.label for guess in found[:2]] == [2, 1]
    assert [guess.name for guess in found[:2]] == ["same", "same"]
    assert (found[-1].name, len(found)) == ("zero", 10)


def test_names_of_a_checkpoint_come_before_numbers(tmp_path: Path, model: nn.Module) -> None:
    notes = digits_notes(model)
    notes["preprocessing"] |= {"classes": {"three": 3}, "order": "natural"}
    classifier = open_classifier(digits_artifact(tmp_path / "art", model, notes))
    assert list(classifier.names[2:5]) == ["2", "three", "4"]


def test_files_and_bytes_are_read_as_a_study_reads_them(tmp_path: Path, model: nn.Module) -> None:
    Image.linear_gradient("L").save(tmp_path / "grey.png")
    classifier = open_classifier(digits_artifact(tmp_path / "art", model))
    read = classifier.read(tmp_path / "grey.png")
    expected = Preprocessing.of(model).transform()(Image.linear_gradient("L"))
    assert torch.equal(read, expected)
    assert torch.equal(classifier.read(io.BytesIO((tmp_path / "grey.png").read_bytes())), read)


def test_an_unreadable_image_is_named(tmp_path: Path, model: nn.Module) -> None:
    classifier = open_classifier(digits_artifact(tmp_path / "art", model))
    with pytest.raises(DataError, match="every image must be readable, but image 3 is not: "):
        classifier.read(io.BytesIO(b"no image"), "image 3")


@pytest.mark.parametrize("notes", [{"preprocessing": None}])
def test_without_preprocessing_it_is_refused(
    tmp_path: Path, model: nn.Module, notes: dict[str, Any]
) -> None:
    path = digits_artifact(tmp_path / "art", model, notes)
    with pytest.raises(ArtifactError, match="it notes no preprocessing"):
        open_classifier(path)
