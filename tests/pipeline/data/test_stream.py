"""Images that are read when they are needed: the same ones, in the same order, by any readers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import (
    Block,
    Fingerprint,
    Images,
    ImageSource,
    Preprocessing,
    Stream,
    draw,
    load_all,
    open_source,
    regrouped,
)
from pipeline.errors import DataError

ROOT = Path(__file__).resolve().parents[3]


def numbered(count: int, labelled: bool = True) -> ImageSource:
    """Images whose every value is their place, and whose label is ten times that."""
    source = ImageSource("numbers", lambda i: (torch.full((1, 2, 2), float(i)), 10 * i), count)
    source.labelled = labelled
    return source


def places(blocks: list[Block]) -> list[float]:
    return [float(value) for block in blocks for value in block.values[:, 0, 0, 0]]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_reader_gives_the_same_images_in_order(workers: int) -> None:
    chosen = [5, 3, 40, 7, 8, 0, 33, 2, 1, 39, 4]
    blocks = list(Stream(numbered(41), chosen, workers).blocks(4))
    assert places(blocks) == chosen
    assert [len(block) for block in blocks] == [8, 3]
    labels = [block.labels for block in blocks]
    assert all(found is not None for found in labels)
    assert torch.cat([f for f in labels if f is not None]).tolist() == [10 * i for i in chosen]


@pytest.mark.parametrize(("free", "units"), [(2**26, [32, 9]), (2**11, [8] * 5 + [1])])
def test_workers_read_whole_batches_where_memory_holds_them(
    free: int, units: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    one_unit = Stream.units

    def noted(stream: Stream, size: int) -> Iterator[Block]:
        for unit in one_unit(stream, size):
            read.append(len(unit))
            yield unit

    monkeypatch.setattr(Stream, "units", noted)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    blocks = list(Stream(numbered(41), range(41), workers=2).blocks(32))
    assert read == units
    assert [len(block) for block in blocks] == [32, 9]
    assert places(blocks) == list(range(41))


def test_images_without_labels_have_none() -> None:
    [block] = Stream(numbered(3, labelled=False), range(3)).blocks(32)
    assert block.labels is None


def test_a_part_is_read_alone() -> None:
    read: list[int] = []

    def note(i: int) -> tuple[torch.Tensor, int]:
        read.append(i)
        return torch.zeros(1, 1, 1), i

    stream = Stream(ImageSource("noted", note, 100), range(100), workers=0)[50:53]
    assert len(stream) == 3
    assert len(list(stream.blocks(2))) == 2
    assert set(read) == {50, 51, 52}


def test_blocks_take_the_memory_that_they_are_given_in_whole_batches() -> None:
    one = torch.zeros(1, 2, 2).nbytes
    blocks = list(Stream(numbered(100), range(100), workers=0).blocks(6, memory=20 * one))
    assert [len(block) for block in blocks] == [24, 24, 24, 24, 4]
    assert places(blocks) == list(range(100))


def test_regrouping_keeps_batches_whole_over_the_ends_of_sets() -> None:
    sets = [Block(torch.arange(n).float().reshape(-1, 1, 1, 1) + 100 * n, None) for n in (5, 2, 6)]
    regroup = list(regrouped(sets, 4))
    assert [len(block) for block in regroup] == [4, 8, 1]
    assert places(regroup) == places(sets)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named_as_in_this_process(workers: int) -> None:
    def read(i: int) -> tuple[torch.Tensor, int]:
        if i == 30:
            raise DataError("every image must be readable, but 30.png is not: broken")
        return torch.zeros(1, 1, 1), i

    stream = Stream(ImageSource("broken", read, 50), range(50), workers)
    with pytest.raises(DataError) as caught:
        list(stream.blocks(8))
    assert str(caught.value) == "every image must be readable, but 30.png is not: broken"


def test_a_reader_that_is_killed_is_a_plain_error() -> None:
    def read(i: int) -> tuple[torch.Tensor, int]:
        if i == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1, 1, 1), i

    stream = Stream(ImageSource("killed", read, 50), range(50), workers=2)
    with pytest.raises(DataError, match=r"must not be killed, but one was: .*Free some memory"):
        list(stream.blocks(8))


def test_reading_leaves_torch_s_generator_alone() -> None:
    before = torch.get_rng_state()
    list(Stream(numbered(20), range(20), workers=2).blocks(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fingerprint_taken_while_images_pass_is_that_of_all_of_them() -> None:
    source = open_source("digits", Preprocessing({"input_size": (1, 8, 8)}, 10))
    seen = Fingerprint()
    for _ in seen.of(Stream(source, range(source.size)).blocks(32)):
        pass
    assert seen.text == load_all(source).fingerprint


class TestDraw:
    def drawn(self, streamed: tuple[str, ...]) -> dict[str, Images]:
        source = open_source("digits", Preprocessing({"input_size": (1, 8, 8)}, 10))
        wanted = {"first": (source, 20, 20), "second": (source, 30, 30)}
        return draw(wanted, 3, streamed=streamed)

    def test_many_images_are_read_again_instead_of_kept_and_are_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = self.drawn(())
        monkeypatch.setattr(sys.modules["pipeline.data.draw"], "KEPT", 1000)
        drawn = self.drawn(("second",))
        assert isinstance(drawn["first"].values, torch.Tensor)
        assert isinstance(drawn["second"].values, Stream)
        for purpose, images in kept.items():
            assert torch.equal(drawn[purpose].loaded(), images.loaded())
            assert drawn[purpose].fingerprint == images.fingerprint
            assert images.labels is not None
            assert drawn[purpose].labels is not None
            assert torch.equal(drawn[purpose].labels, images.labels)

    def test_few_images_are_kept(self) -> None:
        assert isinstance(self.drawn(("second",))["second"].values, torch.Tensor)

    def test_blocks_have_the_labels_that_the_set_has(self) -> None:
        stream = Stream(numbered(9), range(9))
        labelled = Images("numbers", stream, torch.arange(0, 90, 10), "")
        [block] = labelled.blocks(9)
        assert block.labels is not None
        [without] = Images("numbers", stream, None, "").blocks(9)
        assert without.labels is None
        assert torch.equal(without.values, block.values)


INTERRUPTED = """
import time, torch
from pipeline.data import ImageSource, Stream
def read(i):
    time.sleep(0.02)
    return torch.zeros(1, 1, 1), i
for block in Stream(ImageSource("slow", read, 10**6), range(10**6), workers=2).blocks(8):
    print("read", flush=True)
"""


@pytest.mark.slow
def test_an_interrupt_ends_readers_without_a_word() -> None:
    """As a terminal does it: the signal goes to every process of the group."""
    run = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "read\n"
    time.sleep(0.3)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=20)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert err.count("Traceback") == 1, "that of the process that was told, which a command catches"
    assert not subprocess.run(["pgrep", "-g", str(run.pid)], capture_output=True).stdout


@pytest.mark.slow
def test_listing_many_files_takes_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "n01440764").mkdir()
    pixels = np.zeros((8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "n01440764" / "0.png")
    for i in range(1, 2000):
        os.link(tmp_path / "n01440764" / "0.png", tmp_path / "n01440764" / f"{i}.png")
    listed: list[str] = []
    walk = os.walk

    def noted(top: str, **more: bool) -> object:
        listed.append(top)
        return walk(top, **more)

    opened = 0
    image_open = Image.open

    def counted(file: object) -> object:
        nonlocal opened
        opened += 1
        return image_open(file)

    monkeypatch.setattr(os, "walk", noted)
    monkeypatch.setattr(Image, "open", counted)
    source = open_source(str(tmp_path), Preprocessing({"input_size": (1, 8, 8)}, 1000))
    assert (source.size, len(listed), opened) == (2000, 1, 0)
