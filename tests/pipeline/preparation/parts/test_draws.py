"""A draw that was made before is known by its files, and gives the same images."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import igq
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.data.classes import Order
from pipeline.errors import DataError
from pipeline.preparation.parts.draws import draw_shared
from pipeline.preparation.parts.shared import Results, entries

KEPT, STREAMED = "kept", "streamed"
HOW = Preprocessing.of(
    igq.create("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "num_classes": 2})
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two classes with eight images, of which two are the same."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 20, 20, 3), dtype=np.uint8)
    pixels[7] = pixels[0]
    for number, values in enumerate(pixels):
        path = tmp_path / "images" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    return tmp_path / "images"


@pytest.fixture
def again(folder: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Images], list[int]]]:
    """Return a function that draws, and tells which places were read."""

    def drawn(seed: int = 0, how: Preprocessing = HOW) -> tuple[dict[str, Images], list[int]]:
        source, places = open_source(str(folder), how), []
        read = source.read

        def noted(place: int) -> tuple[torch.Tensor, int]:
            places.append(place)
            return read(place)

        source.read = noted
        wanted = {KEPT: (source, 2, 2), STREAMED: (source, 3, 4)}
        results = Results(tmp_path / "study", tmp_path / "shared")
        return draw_shared(wanted, seed, how, results, streamed=(STREAMED,)), places

    return drawn


def equal(one: dict[str, Images], other: dict[str, Images]) -> bool:
    return all(
        torch.equal(one[p].loaded(), other[p].loaded())
        and torch.equal(one[p].labels, other[p].labels)
        and one[p].fingerprint == other[p].fingerprint
        for p in (KEPT, STREAMED)
    )


def test_the_same_images_come_and_only_those_in_memory_are_read(again) -> None:
    first, every = again()
    second, few = again()
    assert len(every) > len(few)
    assert set(few) == set(first[KEPT].places)
    assert equal(first, second)


def test_the_entry_is_listed_with_its_source(again, folder: Path, tmp_path: Path) -> None:
    again()
    (entry,) = entries(tmp_path / "shared")
    assert entry.made_for == f"images drawn from {folder}"
    assert entry.used_by == (str(tmp_path / "study"),)


def test_a_file_that_vanishes_after_it_was_read_keeps_nothing(
    again, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn_and_gone(*arguments: object) -> dict[str, Images]:
        found = draw(*arguments)
        (folder / "0" / "0.png").unlink()
        (folder / "1" / "7.png").unlink()
        return found

    monkeypatch.setattr("pipeline.preparation.parts.draws.draw", drawn_and_gone)
    found, _ = again()
    assert len(found[KEPT]) == 2
    assert entries(tmp_path / "shared") == []


@pytest.mark.parametrize("purpose", [KEPT, STREAMED])
def test_a_changed_file_is_read_again(again, folder: Path, purpose: str) -> None:
    first, _ = again()
    place = first[purpose].places[0]
    path = Path(open_source(str(folder), HOW).files[place][0])
    Image.fromarray(np.full((20, 20, 3), 9, dtype=np.uint8)).save(path)
    second, _ = again()
    assert second[purpose].fingerprint != first[purpose].fingerprint
    assert torch.equal(second[purpose].loaded()[0], open_source(str(folder), HOW).read(place)[0])


def test_pixels_that_changed_behind_the_same_size_and_time_are_seen(again, folder: Path) -> None:
    first, _ = again()
    path = Path(open_source(str(folder), HOW).files[first[KEPT].places[0]][0])
    seen, content = path.stat(), bytearray(path.read_bytes())
    other = Path(open_source(str(folder), HOW).files[first[STREAMED].places[0]][0])
    content = other.read_bytes()[: len(content)].ljust(len(content), b"\0")
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert path.stat().st_size == seen.st_size
    second, _ = again()
    assert second[KEPT].fingerprint != first[KEPT].fingerprint


def test_another_seed_preprocessing_or_number_of_files_is_another_draw(again, folder: Path) -> None:
    again()
    cropped = replace(HOW, config={**HOW.config, "crop_pct": 0.5})
    alphabetical = replace(HOW, order=Order.ALPHABETICAL.value)
    for different in ({"seed": 1}, {"how": cropped}, {"how": alphabetical}):
        _, read = again(**different)
        assert len(read) > 2
    Image.fromarray(np.full((20, 20, 3), 9, dtype=np.uint8)).save(folder / "1" / "8.png")
    _, read = again()
    assert len(read) > 2


def test_a_damaged_entry_is_drawn_again(again, tmp_path: Path) -> None:
    first, _ = again()
    (entry,) = entries(tmp_path / "shared")
    (written,) = entry.path.glob("draw_*.json")
    written.write_text(written.read_text().replace('"files"', '"flies"'))
    second, read = again()
    assert len(read) > 2
    assert equal(first, second)


def test_a_file_that_is_gone_is_an_error_of_the_images(again, folder: Path) -> None:
    first, _ = again()
    source = open_source(str(folder), HOW)
    path = Path(source.files[first[KEPT].places[0]][0])
    path.unlink()
    path.mkdir()
    wanted = {KEPT: (source, 2, 2), STREAMED: (source, 3, 4)}
    results = Results(folder.parent / "study", folder.parent / "shared")
    with pytest.raises(DataError, match=path.name):
        draw_shared(wanted, 0, HOW, results, streamed=(STREAMED,))


def test_digits_are_not_noted(tmp_path: Path) -> None:
    how = Preprocessing({"input_size": (1, 8, 8)}, 10)
    results = Results(tmp_path / "study", tmp_path / "shared")
    draw_shared({KEPT: (open_source("digits", how), 2, 2)}, 0, how, results)
    assert not (tmp_path / "shared").exists()
