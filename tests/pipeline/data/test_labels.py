"""Labels of single images by CSV or JSON, and what is wrong with such files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from pipeline.data import ImageSource, Preprocessing, open_source
from pipeline.data.labels import LARGEST, read_labels
from pipeline.errors import DataError

NAMES = [*"abcdefghij"]
Open = Callable[..., ImageSource]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for place in range(10):
        Image.new("L", (8, 8), 20 * place).save(tmp_path / "images" / f"{place}.png")
    return tmp_path


@pytest.fixture
def opened(folder: Path, model: nn.Module) -> Open:
    def run(text: str, name: str = "labels.csv", root: str = "", **known: object) -> ImageSource:
        (folder / name).write_text(text)
        preprocessing = Preprocessing.of(model).with_classes(known or None)  # type: ignore[arg-type]
        return open_source(f"{folder / name}{root}", preprocessing)

    return run


def labels(source: ImageSource) -> list[int]:
    return [source.read(place)[1] for place in range(source.size)]


def rows(names: list[str], heading: str = "") -> str:
    return heading + "".join(f"images/{place}.png,{name}\n" for place, name in enumerate(names))


class TestReading:
    @pytest.mark.parametrize("heading", ["", "image,label\n", "\ufefffile,class\n"])
    def test_names_are_classes_in_natural_order(self, opened: Open, heading: str) -> None:
        source = opened(rows(NAMES[::-1], heading))
        assert (source.labelled, labels(source)) == (True, [*range(9, -1, -1)])
        assert source.classes == dict(zip(NAMES, range(10), strict=True))

    def test_numbers_are_the_model_s_classes_though_some_are_absent(self, opened: Open) -> None:
        assert labels(opened(rows(["7", "0", "3"]))) == [7, 0, 3]

    def test_given_classes_decide(self, opened: Open) -> None:
        assert labels(opened(rows(["b", "a"]), a=4, b=2)) == [2, 4]

    @pytest.mark.parametrize(
        "content",
        [
            {"images/3.png": 7, "images/1.png": "0"},
            [["images/3.png", "7"], ["images/1.png", 0]],
            [{"file": "images/3.png", "class": 7}, {"file": "images/1.png", "class": 0}],
        ],
        ids=["object", "pairs", "objects"],
    )
    def test_json(self, opened: Open, content: object) -> None:
        source = opened(json.dumps(content), "labels.json")
        assert labels(source) == [7, 0]
        assert source.read(0)[0].max() > source.read(1)[0].max()  # 3.png is brighter

    def test_images_lie_elsewhere(self, opened: Open, folder: Path) -> None:
        assert labels(opened("3.png,7\n0.png,0\n", root=f":{folder / 'images'}")) == [7, 0]


class TestRefusals:
    CASES = (
        ("images/1.png,7\nimages/1.png,0\n", "must list each image once, but lists .*/1.png twice"),
        ("images/1.png,7\nimages/./1.png,7\n", "must list each image once"),
        ("images/1.png,7\nimages/77.png,0\n", "but 1 of 2 are not: .*/images/77.png"),
        ("images/1.png\n", "row 1 must have two cells"),
        ("images/1.png,0,3\n", "row 1 must have two cells"),
        ("images/1.png,\n", "row 1 must have a path and a class"),
        ("../1.png,0\n", "must list images in .*, but lists .*; .*:ROOT names another"),
        ("/etc/passwd.png,0\n", "must list images in .*, but lists /etc/passwd.png"),
        ('"images/1.png,0\n', "must have an image and its class in each row"),
        ("", "must hold images, but .*labels.csv lists none"),
        ("image,label\n", "must hold images, but .*labels.csv lists none"),
        ("images/1.png,cat\nimages/2.png,dog\n", "the model, which has 10, but names 2"),
        ("images/1.png,0\nimages/2.png,12\n", "the model, which has 10, but names 2"),
    )

    @pytest.mark.parametrize(("text", "said"), CASES, ids=lambda value: repr(value)[:40])
    def test_csv(self, opened: Open, text: str, said: str) -> None:
        with pytest.raises(DataError, match=said):
            opened(text)

    def test_a_name_that_is_no_class(self, opened: Open) -> None:
        with pytest.raises(DataError, match=r"classes of the model alone, but has bird, cow\.$"):
            opened(rows(["a", "bird", "cow"]), a=4)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{"images/1.png": 0, "images/1.png": 1}', "must list each image once"),
            ("3", "it must hold an object or a list"),
            ('["images/1.png"]', "row 1 must have two cells"),
            ('{"images/1.png": true}', "row 1 must have the name or number of a class"),
            ('{"images/1.png": 0.5}', "row 1 must have the name or number of a class"),
            ('[[3, "cat"]]', "row 1 must have a path and a class"),
            ('{"a\\u0000.png": 1}', "row 1 must have a path and a class"),
            ("[" * 100_000, "must have an image and its class in each row"),
            ("{", "must have an image and its class in each row"),
        ],
        ids=lambda value: value[:30],
    )
    def test_json(self, opened: Open, text: str, said: str) -> None:
        with pytest.raises(DataError, match=said):
            opened(text, "labels.json")

    def test_a_file_that_is_too_large_or_not_there(self, folder: Path) -> None:
        large = folder / "large.csv"
        with large.open("wb") as file:
            file.truncate(LARGEST + 1)
        with pytest.raises(DataError, match="it must have at most 268435456 bytes"):
            read_labels(large, folder)
        with pytest.raises(DataError, match="could not be read as labels: No such file"):
            read_labels(folder / "none.csv", folder)
