"""Images and folders of them are classified in order; whatever is no image is refused by name."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from pipeline.classifier import open_classifier
from pipeline.cli import main
from pipeline.commands.artifacts.classify import classify
from pipeline.errors import DataError
from tests.artifacts import digits_artifact


@pytest.fixture
def artifact(tmp_path: Path, model: nn.Module) -> Path:
    return digits_artifact(tmp_path / "art", model)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of ten grey images, more than are read at once, and a note."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(10):
        Image.new("L", (9, 8), 25 * number).save(folder / f"{number + 1}.png")
    (folder / "notes.txt").touch()
    return folder


def test_a_folder_is_classified_in_natural_order(artifact: Path, images: Path) -> None:
    found = list(classify(artifact, [images / "7.png", images], top=3))
    assert [one.file.stem for one in found] == ["7", *map(str, range(1, 11))]
    assert found[0].guesses == found[7].guesses
    classifier = open_classifier(artifact)
    row = classifier.probabilities(classifier.read(images / "7.png")[None])[0]
    assert found[0].guesses[0].label == int(row.argmax())
    assert [len(one.guesses) for one in found] == [3] * 11


def test_what_is_not_there_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a file or a folder, but .*cat\.png is not there"):
        list(classify(tmp_path / "nowhere", [tmp_path / "cat.png"]))


def test_a_folder_without_images_is_refused(tmp_path: Path, artifact: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(DataError, match=r"empty has none\. Passed over.*1 \.txt"):
        list(classify(artifact, [tmp_path / "empty"]))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg/>"])
def test_an_odd_image_is_refused_by_name(tmp_path: Path, artifact: Path, content: bytes) -> None:
    (tmp_path / "odd.png").write_bytes(content)
    with pytest.raises(DataError, match=r"every image must be readable, but .*odd\.png is not"):
        list(classify(artifact, [tmp_path / "odd.png"]))


def igq(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["igq", "run", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_prints_names_and_probabilities(
    artifact: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert igq(monkeypatch, artifact, images / "2.png", "--top", 2) == 0
    shown = capsys.readouterr().out.splitlines()
    assert igq(monkeypatch, artifact, images / "2.png", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    best = row["classes"][0]
    assert (row["file"], len(row["classes"])) == (str(images / "2.png"), 5)
    line = f"{best['probability']:6.1%}  {best['name']} ({best['label']})"
    assert (shown[0], shown[1].strip(), len(shown)) == (row["file"], line.strip(), 3)


def test_the_command_ends_with_2_for_an_odd_image(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert igq(monkeypatch, artifact, artifact / "manifest.json") == 2
    assert "manifest.json is not: cannot identify image file" in capsys.readouterr().err
