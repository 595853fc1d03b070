"""Images per second of an evaluation, beside a plain timm validation loop, and the peak memory.

    python -m benchmarks.reading --model vit_tiny_patch16_224 --folder imagenet/val --images 1000

Both predict with the same full-precision model, in batches of 32, and read the same files with as
many worker processes; rounds alternate. The evaluation hashes what it reads, and keeps scores image
by image.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import nn

from benchmarks.real import ASSETS, DIGITS, load, machine
from igq.evaluation import BATCH_SIZE
from pipeline.data import Fingerprint, Preprocessing, Stream, open_source
from pipeline.evaluation.scoring import Contest
from search_spaces.demo.digits import digits_split


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="vit_tiny_patch16_224", help=f"or {DIGITS}")
    parser.add_argument("--folder", type=Path, default=ASSETS / "images" / "nips17")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as written:
        if options.model == DIGITS:
            options.folder = _write_digits(Path(written), options.images)
        model = load(options.model)
        ways = {"timm": _timm, "igq": _igq}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                seconds[name].append(_seconds(way, model, options))
    print(f"{options.model}, {options.images} images, {options.workers} workers; {machine()}")
    print("| loop | images per second, best round | rounds |\n|---|---|---|")
    for name, taken in seconds.items():
        rounds = ", ".join(f"{options.images / s:.1f}" for s in taken)
        print(f"| {name} | {options.images / min(taken):.1f} | {rounds} |")
    print(f"peak memory of this process: {_peak() / 2**20:.0f} MiB")


Way = Callable[[nn.Module, argparse.Namespace], int]


def _seconds(way: Way, model: nn.Module, options: argparse.Namespace) -> float:
    start = time.perf_counter()
    seen = way(model, options)
    assert seen == options.images, f"{seen} images instead of {options.images}"
    return time.perf_counter() - start


def _igq(model: nn.Module, options: argparse.Namespace) -> int:
    source = open_source(str(options.folder), Preprocessing.of(model))
    stream = Stream(source, range(options.images), options.workers)
    blocks = Fingerprint().of(stream.blocks(BATCH_SIZE))
    [score] = Contest([lambda: model]).score(blocks, len(stream)).models
    return 0 if score.correct is None else len(score.correct)


@torch.inference_mode()
def _timm(model: nn.Module, options: argparse.Namespace) -> int:
    """Predict as timm's validate.py does, without a GPU."""
    config = Preprocessing.of(model).config
    mode = "L" if config["input_size"][0] == 1 else "RGB"
    loader = create_loader(
        create_dataset("", root=str(options.folder), input_img_mode=mode),
        input_size=config["input_size"],
        batch_size=BATCH_SIZE,
        use_prefetcher=False,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        num_workers=options.workers,
        crop_pct=config["crop_pct"],
    )
    correct = seen = 0
    for values, labels in islice(loader, -(-options.images // BATCH_SIZE)):
        few = min(len(values), options.images - seen)
        correct += int((model(values).argmax(-1) == labels)[:few].sum())
        seen += few
    return seen


def _write_digits(folder: Path, images: int) -> Path:
    """Write images of digits in folders of their classes."""
    rest = digits_split().rest
    for label in range(10):
        (folder / str(label)).mkdir()
    for number in range(images):
        label = int(rest.labels[number]) if number >= 10 else number
        pixels = (127 + 64 * rest.images[number, 0]).clip(0, 255).astype("uint8")
        Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    return folder


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
