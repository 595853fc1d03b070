"""Which files of a folder are images, and what is said of the others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.data import Preprocessing, load_all, open_source
from pipeline.data.folders import formats, list_images
from pipeline.errors import DataError

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
ENDINGS = [".png", ".PNG", ".jpg", ".JPEG", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm"]
ENDINGS += [".pgm", ".tga", ".jp2", ".ico"]


@pytest.fixture
def preprocessing(model: nn.Module) -> Preprocessing:
    return Preprocessing.of(model)


def save(path: Path, image: Image.Image | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.fromarray(PIXELS)).save(path)
    return path


class TestListing:
    def test_every_ending_that_pil_reads_is_an_image(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        for number, ending in enumerate(ENDINGS):
            save(tmp_path / f"{number}{ending}")
        source = open_source(str(tmp_path), preprocessing)
        assert source.size == len(ENDINGS)
        assert source.notes == ()
        assert load_all(source).values.shape == (len(ENDINGS), 1, 8, 8)

    def test_other_files_are_counted_and_said(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        for name in ("labels.csv", "more.csv", "README", "scan.dcm"):
            (tmp_path / name).touch()
        assert list_images(tmp_path).passed_over == (
            "Passed over, as no images that can be read: 2 .csv, 1 without ending, 1 .dcm.",
        )

    def test_hidden_files_and_folders_are_passed_over(self, tmp_path: Path) -> None:
        for name in ("cats/a.png", ".ipynb_checkpoints/a.png", "cats/._a.png", ".git/x/b.png"):
            save(tmp_path / name)
        listing = list_images(tmp_path)
        assert listing.folders == ("cats",)
        assert listing.passed_over == ("Passed over, as in hidden files or folders: 3 images.",)

    def test_a_folder_below_a_hidden_one_is_not_hidden(self, tmp_path: Path) -> None:
        save(tmp_path / ".cache" / "images" / "cats" / "a.png")
        assert list_images(tmp_path / ".cache" / "images").folders == ("cats",)

    def test_a_link_to_a_folder_above_ends(self, tmp_path: Path) -> None:
        save(tmp_path / "cats" / "a.png")
        (tmp_path / "cats" / "again").symlink_to(tmp_path)
        assert len(list_images(tmp_path).files) == 1

    def test_files_come_in_natural_order(self, tmp_path: Path) -> None:
        for name in ("10.png", "9.png", "a2.png", "A10.png"):
            save(tmp_path / name)
        names = [Path(file).name for file in list_images(tmp_path).files]
        assert names == ["9.png", "10.png", "a2.png", "A10.png"]

    def test_formats_that_run_another_program_are_not_read(self) -> None:
        assert not {".eps", ".ps", ".wmf", ".emf", ".pdf"} & formats().keys()

    def test_a_folder_whose_files_are_no_images_says_which_they_are(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        (tmp_path / "scan.dcm").touch()
        with pytest.raises(DataError) as raised:
            open_source(str(tmp_path), preprocessing)
        assert str(raised.value) == (
            f"`images` must hold images that PIL reads, got {tmp_path}: Found 0 images. "
            "Passed over, as no images that can be read: 1 .dcm."
        )


class TestNotes:
    def test_transparency_is_told_once(self, tmp_path: Path, preprocessing: Preprocessing) -> None:
        for number in range(40):
            save(tmp_path / f"{number}.png", Image.new("LA", (8, 8), (0, 100)))
        source = open_source(str(tmp_path), preprocessing)
        assert source.notes == ("Transparent pixels are drawn on white, as in 0.png.",)

    def test_images_of_no_class_are_left_out_and_counted(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        for name in ("0/a.png", "3/b.png", "3/c.png", "stray.png"):
            save(tmp_path / name, Image.new("L", (8, 8), len(name)))
        source = open_source(str(tmp_path), preprocessing)
        labels = load_all(source).labels
        assert labels is not None
        assert labels.tolist() == [0, 3, 3]
        assert source.notes == (
            "1 of 4 images is left out, as its folder is no class of the model (.).",
        )

    def test_unused_labels_say_why(self, tmp_path: Path, preprocessing: Preprocessing) -> None:
        save(tmp_path / "cats" / "a.png")
        source = open_source(str(tmp_path), preprocessing)
        assert not source.labelled
        assert source.notes == (
            "Labels are not used: there are 1 class folders, but the model has 10 classes; "
            "--classes FILE says which class each folder is.",
        )


Values = Callable[[Image.Image], torch.Tensor]


class TestPixels:
    @pytest.fixture
    def values(self, tmp_path: Path, preprocessing: Preprocessing) -> Values:
        """The pixels of an image as the model gets them, in its own scale from 0 to 255."""
        mean, std = preprocessing.config["mean"][0], preprocessing.config["std"][0]

        def of(image: Image.Image, ending: str = ".png") -> torch.Tensor:
            save(tmp_path / f"image{ending}", image)
            read = load_all(open_source(str(tmp_path), preprocessing)).values[0, 0]
            return ((read * std + mean) * 255).round()

        return of

    @pytest.mark.parametrize("ending", [".png", ".tif"])
    def test_16_bits_are_converted_by_their_range(self, values: Values, ending: str) -> None:
        sixteen = Image.fromarray(PIXELS.astype(np.uint16) * 257)
        assert values(sixteen, ending).tolist() == PIXELS.tolist()  # type: ignore[call-arg]

    @pytest.mark.parametrize("hidden", [0, 77, 255])
    def test_transparent_pixels_are_white_whatever_colour_lies_beneath(
        self, values: Values, hidden: int
    ) -> None:
        layers = np.full((8, 8, 2), hidden, dtype=np.uint8)
        layers[..., 1] = 0
        assert values(Image.fromarray(layers, "LA")).eq(255).all()

    def test_half_transparent_black_is_grey(self, values: Values) -> None:
        assert values(Image.new("RGBA", (8, 8), (0, 0, 0, 55))).eq(200).all()

    def test_a_palette_s_transparent_colour_is_white(self, values: Values) -> None:
        image = Image.fromarray(np.zeros((8, 8), dtype=np.uint8), "P")
        image.putpalette([10, 20, 30] * 256)
        image.info["transparency"] = 0
        assert values(image).eq(255).all()

    def test_opaque_alpha_changes_nothing(self, values: Values) -> None:
        grey = Image.fromarray(PIXELS)
        opaque = Image.merge("LA", (grey, Image.new("L", (8, 8), 255)))
        assert values(opaque).tolist() == PIXELS.tolist()

    @pytest.mark.parametrize(
        ("dtype", "words"), [(np.int32, "32-bit integers"), (np.float32, "floats")]
    )
    def test_pixels_without_a_known_range_are_refused_by_name(
        self, values: Values, dtype: type, words: str
    ) -> None:
        image = Image.fromarray(PIXELS.astype(dtype))
        with pytest.raises(DataError) as raised:
            values(image, ".tif")  # type: ignore[call-arg]
        message = str(raised.value)
        assert "image.tif is not: its pixels must have 8 or 16 bits, but are" in message
        assert message.endswith(f"{words}; convert it")

    def test_a_file_of_another_format_than_its_ending_is_read(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        save(tmp_path / "a.bmp").rename(tmp_path / "a.png")
        assert load_all(open_source(str(tmp_path), preprocessing)).values.shape == (1, 1, 8, 8)

    def test_postscript_in_a_png_is_not_run(
        self, tmp_path: Path, preprocessing: Preprocessing
    ) -> None:
        proof = tmp_path / "proof"
        program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n({proof}) (w) file closefile\n"
        (tmp_path / "a.png").write_text(program)
        with pytest.raises(DataError, match=r"a\.png is not: cannot identify image file"):
            load_all(open_source(str(tmp_path), preprocessing))
        assert not proof.exists()

    def test_a_decompression_bomb_is_refused(
        self, tmp_path: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
        with pytest.raises(DataError, match=r"a\.png is not: Image size \(64 pixels\) exceeds"):
            load_all(open_source(str(tmp_path), preprocessing))
