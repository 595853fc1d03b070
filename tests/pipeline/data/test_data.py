"""Where images come from, which label they get, and that no image serves two purposes."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.data import Images, Preprocessing, draw, load_all, open_source
from pipeline.errors import DataError

WORDNET = {"n01440764": 0, "n01443537": 1, "n02123045": 281, "n15075141": 999}
"""Some ids of ImageNet-1k and their classes."""

Folder = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def preprocessing(model: nn.Module) -> Preprocessing:
    """Of a model of 10 classes for 8 x 8 grey images."""
    return Preprocessing.of(model)


@pytest.fixture
def imagenet(preprocessing: Preprocessing) -> Preprocessing:
    return replace(preprocessing, num_classes=1000)


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder of so many images for each class; "" puts them into the folder itself."""

    def make(images: Mapping[str, int]) -> Path:
        root = tmp_path / "images"
        seeds = iter(range(10**6))
        for name, count in images.items():
            for i in range(count):
                paint(root / name / f"{name}_{i}.png", next(seeds))
        return root

    return make


class TwoImages:
    """A dataset as torchvision has them."""

    wnid_to_idx: Mapping[str, int]

    def __init__(self, class_to_idx: Mapping[str, int], targets: tuple[int, int] = (0, 1)) -> None:
        self.class_to_idx, self.targets = class_to_idx, targets

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (8, 8), 100 * index), self.targets[index]


def contents(images: Images) -> list[bytes]:
    return [image.numpy().tobytes() for image in images.values]


class TestLabels:
    def test_wordnet_ids_are_imagenet_s_classes_also_where_only_some_are_present(
        self, folder: Folder, imagenet: Preprocessing
    ) -> None:
        root = folder({"n15075141": 2, "n02123045": 1})
        images = load_all(open_source(str(root), imagenet))
        assert images.labels is not None
        assert images.labels.tolist() == [281, 999, 999]

    @pytest.mark.parametrize("name", WORDNET)
    def test_each_wordnet_id_has_its_class(
        self, folder: Folder, imagenet: Preprocessing, name: str
    ) -> None:
        images = load_all(open_source(str(folder({name: 1})), imagenet))
        assert images.labels is not None
        assert images.labels.tolist() == [WORDNET[name]]

    def test_as_many_folders_as_classes_are_the_classes_in_alphabetical_order(
        self, folder: Folder, preprocessing: Preprocessing
    ) -> None:
        root = folder({f"class_{letter}": 1 for letter in "jihgfedcba"})
        images = load_all(open_source(str(root), preprocessing))
        assert images.labels is not None
        assert images.labels.tolist() == list(range(10))

    @pytest.mark.parametrize(
        "classes",
        [{"cats": 1, "dogs": 1}, {"": 3}],
        ids=["other names", "no class folders"],
    )
    def test_folders_that_tell_no_classes_give_images_without_labels(
        self, folder: Folder, imagenet: Preprocessing, classes: dict[str, int]
    ) -> None:
        images = load_all(open_source(str(folder(classes)), imagenet))
        assert len(images) == sum(classes.values())
        assert images.labels is None

    def test_wordnet_ids_mean_nothing_to_a_model_of_other_classes(
        self, folder: Folder, preprocessing: Preprocessing
    ) -> None:
        root = folder({"n01440764": 1, "n01443537": 1})
        assert load_all(open_source(str(root), preprocessing)).labels is None

    def test_a_torchvision_dataset_is_named_with_its_root(
        self, folder: Folder, imagenet: Preprocessing
    ) -> None:
        root = folder({"n15075141": 1, "n01443537": 2})
        theirs = load_all(open_source(f"torch/image_folder:{root}", imagenet))
        ours = load_all(open_source(str(root), imagenet))
        assert theirs.labels is not None
        assert theirs.labels.tolist() == [1, 1, 999]
        assert theirs.fingerprint == ours.fingerprint

    def test_torchvision_s_imagenet_tells_its_ids_beside_english_names(
        self, imagenet: Preprocessing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = TwoImages(class_to_idx={"tench": 0, "goldfish": 1})
        opened.wnid_to_idx = {"n15075141": 0, "n01443537": 1}
        monkeypatch.setattr("pipeline.data.sources.create_dataset", lambda *_, **__: opened)
        labels = load_all(open_source("torch/imagenet:ROOT", imagenet)).labels
        assert labels is not None
        assert labels.tolist() == [999, 1]

    def test_digits_come_with_labels_and_without_those_that_the_demo_learned_from(
        self, preprocessing: Preprocessing
    ) -> None:
        source = open_source("digits", preprocessing)
        images = load_all(source)
        assert images.values.shape == (797, 1, 8, 8)
        assert images.labels is not None
        assert set(images.labels.tolist()) == set(range(10))


class TestPreprocessing:
    def test_has_the_size_and_channels_that_the_model_has_now(
        self, preprocessing: Preprocessing
    ) -> None:
        assert preprocessing.config["input_size"] == (1, 8, 8)
        assert preprocessing.num_classes == 10
        assert len(preprocessing.config["mean"]) == 1

    def test_turns_any_image_into_the_model_s_input(self, preprocessing: Preprocessing) -> None:
        image = Image.new("RGB", (30, 20), "white")
        tensor = preprocessing.transform()(image)
        mean, std = preprocessing.config["mean"][0], preprocessing.config["std"][0]
        torch.testing.assert_close(tensor, torch.full((1, 8, 8), (1 - mean) / std))

    def test_survives_being_written_as_json(
        self, preprocessing: Preprocessing, folder: Folder
    ) -> None:
        listed = {
            k: list(v) if isinstance(v, tuple) else v for k, v in preprocessing.config.items()
        }
        root = str(folder({"": 2}))
        written = load_all(open_source(root, replace(preprocessing, config=listed)))
        assert written.fingerprint == load_all(open_source(root, preprocessing)).fingerprint


class TestDraw:
    def test_purposes_share_no_image(self, preprocessing: Preprocessing) -> None:
        source = open_source("digits", preprocessing)
        drawn = draw({"a": (source, 5, 5), "b": (source, 7, 7), "c": (source, 1, 9)}, seed=0)
        assert [len(images) for images in drawn.values()] == [5, 7, 9]
        together = [content for images in drawn.values() for content in contents(images)]
        assert len(set(together)) == 21

    def test_the_same_image_under_two_names_is_drawn_once(
        self, folder: Folder, preprocessing: Preprocessing, tmp_path: Path
    ) -> None:
        root = folder({"": 3})
        for path in list(root.iterdir()):
            (root / f"copy_{path.name}").write_bytes(path.read_bytes())
        source = open_source(str(root), preprocessing)
        drawn = draw({"a": (source, 2, 2), "b": (source, 1, 6)}, seed=0)
        assert [len(images) for images in drawn.values()] == [2, 1]
        assert not set(contents(drawn["a"])) & set(contents(drawn["b"]))

    def test_the_same_image_in_two_sources_is_drawn_once(
        self, preprocessing: Preprocessing, tmp_path: Path
    ) -> None:
        for i in range(4):
            paint(tmp_path / "first" / f"{i}.png", seed=i)
            paint(tmp_path / "second" / f"{i}.png", seed=i + 2)
        first, second = (
            open_source(str(tmp_path / name), preprocessing) for name in ("first", "second")
        )
        drawn = draw({"a": (first, 4, 4), "b": (second, 1, 4)}, seed=0)
        assert len(drawn["b"]) == 2
        assert not set(contents(drawn["a"])) & set(contents(drawn["b"]))

    def test_labels_stay_with_their_images(self, preprocessing: Preprocessing) -> None:
        source = open_source("digits", preprocessing)
        everything = load_all(source)
        assert everything.labels is not None
        known = dict(zip(contents(everything), everything.labels.tolist(), strict=True))
        drawn = draw({"a": (source, 50, 50)}, seed=3)["a"]
        assert drawn.labels is not None
        assert [known[content] for content in contents(drawn)] == drawn.labels.tolist()

    def test_a_seed_gives_the_same_images_and_another_seed_others(
        self, preprocessing: Preprocessing
    ) -> None:
        prints = []
        for seed in (0, 0, 1):
            source = open_source("digits", preprocessing)
            prints.append(draw({"a": (source, 5, 5)}, seed)["a"].fingerprint)
        assert prints[0] == prints[1]
        assert prints[0] != prints[2]

    def test_progress_ends_at_the_whole(self, preprocessing: Preprocessing) -> None:
        shares: list[float] = []
        source = open_source("digits", preprocessing)
        draw({"a": (source, 5, 5), "b": (source, 5, 5)}, 0, shares.append)
        assert shares == [0.5, 1.0]


class TestRefusals:
    def test_too_few_images_are_refused_with_the_purpose_and_the_number(
        self, folder: Folder, preprocessing: Preprocessing
    ) -> None:
        source = open_source(str(folder({"": 3})), preprocessing)
        with pytest.raises(
            DataError, match=r"must hold at least 2 images for search .* holds 1\.$"
        ):
            draw({"calibration": (source, 2, 2), "search": (source, 2, 2)}, seed=0)

    @pytest.mark.parametrize("form", ["{}", "torch/image_folder:{}"], ids=["timm", "torchvision"])
    def test_an_unreadable_image_is_named(
        self, folder: Folder, preprocessing: Preprocessing, form: str
    ) -> None:
        root = folder({"cats": 1})
        (root / "cats" / "broken.png").write_bytes(b"no image")
        source = open_source(form.format(root), preprocessing)
        with pytest.raises(DataError, match=r"^every image must be readable, but .*broken\.png"):
            load_all(source)

    def test_a_truncated_image_is_named(self, folder: Folder, preprocessing: Preprocessing) -> None:
        root = folder({"cats": 1})
        whole = next(root.rglob("*.png"))
        (root / "cats" / "broken.png").write_bytes(whole.read_bytes()[:60])
        with pytest.raises(DataError, match=r"broken\.png"):
            load_all(open_source(str(root), preprocessing))

    def test_a_folder_without_images_is_refused(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        with pytest.raises(
            DataError, match=r"^`images` must hold images .* got /.*: Found 0 images"
        ):
            open_source(str(tmp_path), preprocessing)

    @pytest.mark.parametrize("name", ["nowhere", "torch/cifar10", "C:pictures", ""], ids=repr)
    def test_what_is_no_source_is_refused(self, name: str, preprocessing: Preprocessing) -> None:
        with pytest.raises(DataError, match=f"^`images` must be a folder.*but got {name!r}"):
            open_source(name, preprocessing)

    def test_a_label_that_the_model_has_no_class_for_is_named(
        self, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = TwoImages(class_to_idx={}, targets=(3, 10))
        monkeypatch.setattr("pipeline.data.sources.create_dataset", lambda *_, **__: opened)
        expected = "^labels must be classes of the model, from 0 to 9, but image 1 has 10.$"
        with pytest.raises(DataError, match=expected):
            load_all(open_source("torch/some:ROOT", preprocessing))

    @pytest.mark.parametrize(
        "name", ["torch/no_such_dataset:{}", "torch/cifar10:{}"], ids=["unknown", "not there"]
    )
    def test_a_dataset_that_timm_cannot_open_is_refused(
        self, name: str, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        with pytest.raises(DataError, match=r"^`images` must hold images that timm can list, got "):
            open_source(name.format(tmp_path), preprocessing)

    @pytest.mark.parametrize("name", ["wds/mine:{}", "hfids/mine:{}", "tfds/mine:{}"])
    def test_a_dataset_that_is_a_stream_is_refused(
        self, name: str, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        with pytest.raises(DataError, match=r"^`images` must be readable in any order.* a stream"):
            open_source(name.format(tmp_path), preprocessing)

    @pytest.mark.skipif(find_spec("datasets") is not None, reason="`datasets` is installed")
    def test_a_package_that_is_wanted_is_named(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        with pytest.raises(DataError, match=r"not installed \(pip install datasets\)$"):
            open_source(f"hfds/mine:{tmp_path}", preprocessing)

    @pytest.mark.skipif(find_spec("datasets") is None, reason="`datasets` is not installed")
    def test_a_dataset_of_hugging_face_is_read_in_any_order(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        datasets = importlib.import_module("datasets")
        for shade in (10, 200):
            pixels = np.full((8, 8), shade, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{shade}.png")
        files = [str(tmp_path / "10.png"), str(tmp_path / "200.png")]
        kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
        made = datasets.Dataset.from_dict(
            {"image": files, "label": ["7", "3"]}, features=datasets.Features(kinds)
        )
        (tmp_path / "mine").mkdir()
        made.to_parquet(tmp_path / "mine" / "validation.parquet")
        source = open_source(f"hfds/{tmp_path}/mine:{tmp_path}/cache", preprocessing)
        (bright, one), (dark, other) = source.read(1), source.read(0)
        assert bright.mean() > dark.mean()
        assert (source.size, one, other) == (2, 3, 7)
