"""Our numbers beside the authors' table: fixed and allocated numbers of groups, and their limit.

The share of full precision's top-1 that is kept on the same images is compared, so that a part of
ImageNet can stand for all of it. As in the paper, each seed draws 32 calibration images, and the
sensitivity is measured on the same ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev

import torch
from jaxtyping import Float
from torch import Tensor, nn

import igq
from igq import Candidates, Corrected, Scheme, Selection, WeightMethod
from igq.allocation import Sensitivity
from igq.evaluation import BATCH_SIZE
from igq.progress import Progress
from igq.quantized import accelerate, quantize_weights
from pipeline.data import Images, ImageSource, Preprocessing, draw, open_source, regrouped
from pipeline.errors import DataError
from pipeline.evaluation.execution import execution
from pipeline.evaluation.scoring import Contest
from pipeline.science.published import BITS, COLUMNS, PUBLISHED, Published
from pipeline.study.progress import Display
from pipeline.study.request import Engine

CHOICES = (2, 4, 6, 8, 10, 12, 16, 24)
"""Numbers of groups that an allocation chooses from (our choice; the paper does not say)."""
CALIBRATION_IMAGES = 32


@dataclass(frozen=True)
class Experiment:
    """The models, bits and columns to measure, and the images."""

    images: tuple[str, ...]
    calibration: str
    weights_dir: Path | None = None
    bits: tuple[int, ...] = (4, 6)
    columns: tuple[str, ...] = COLUMNS
    seeds: int = 5
    most_images: int | None = None
    engine: Engine = Engine.AUTO
    scheme: Scheme = Scheme.PAPER


@dataclass(frozen=True)
class Reproduced:
    """One cell: the share of top-1 kept with each calibration seed, beside the authors'."""

    label: str
    bits: int
    column: str
    kept: tuple[float, ...]
    published: float | None
    """None where the authors publish none."""
    images: int
    full_precision: float
    """Top-1 of the full-precision model on the same images, from 0 to 1."""

    @property
    def mean(self) -> float:
        """The mean over calibration seeds."""
        return fmean(self.kept)

    @property
    def spread(self) -> float | None:
        """The standard deviation over calibration seeds; None of a single one."""
        return stdev(self.kept) if len(self.kept) > 1 else None


def reproduce(experiment: Experiment, display: Display) -> Iterator[Reproduced]:
    """Measure every model whose weights are there, cell by cell.

    Raises:
        DataError: images cannot be found or read, or have no labels; no weights are there.
        InvalidArgumentError: a column that the authors' table does not have, or bits of which
            there are no published numbers.
        WeightsError: weights cannot be read, or do not fit.
    """
    _check(experiment)
    for row, weights in _found(experiment.weights_dir):
        made = (
            igq.create_pretrained(row.model)
            if weights is None
            else igq.create(row.model, {}, weights)
        )
        made = igq.rotated(made, experiment.scheme.rotation)
        bench = _bench(made.to("cuda" if torch.cuda.is_available() else "cpu"), experiment, display)
        for bits in experiment.bits:
            kept = _kept(bench, row.label, bits, experiment, display)
            for column, shares in kept.items():
                published = row.kept(bits, column)
                yield Reproduced(
                    row.label,
                    bits,
                    column,
                    shares,
                    published,
                    bench.size,
                    bench.full_precision,
                )


@dataclass(frozen=True, eq=False)
class _Bench:
    """A model, the images to evaluate it on, and those of each calibration seed."""

    model: nn.Module
    images: tuple[Images, ...]
    calibrations: tuple[Float[Tensor, "drawn channels height width"], ...]
    full_precision: float

    @property
    def size(self) -> int:
        """The number of images."""
        return sum(map(len, self.images))


def _bench(model: nn.Module, experiment: Experiment, display: Display) -> _Bench:
    preprocessing = Preprocessing.of(model)
    names = {*experiment.images, experiment.calibration}
    opened: Mapping[str, ImageSource] = {name: open_source(name, preprocessing) for name in names}
    wanted = {}
    for name in experiment.images:
        most = experiment.most_images or opened[name].size
        if name == experiment.calibration:  # leave some for calibration
            most = min(most, opened[name].size - experiment.seeds * CALIBRATION_IMAGES)
        wanted[name] = (opened[name], 1, most)
    seeds = [f"calibration seed {seed}" for seed in range(experiment.seeds)]
    calibration = (opened[experiment.calibration], CALIBRATION_IMAGES, CALIBRATION_IMAGES)
    wanted |= dict.fromkeys(seeds, calibration)
    drawn = draw(wanted, 0, display.step("reading images"), streamed=experiment.images)
    images = tuple(drawn[name] for name in experiment.images)
    if any(part.labels is None for part in images):
        raise DataError("`images` must be in folders named by ImageNet's classes, for top-1.")
    top1 = _top1(model, images, display.step("full precision"))
    return _Bench(model, images, tuple(drawn[seed].loaded() for seed in seeds), top1)


def _top1(model: nn.Module, images: tuple[Images, ...], progress: Progress) -> float:
    """Return the share of all images whose label is predicted, from 0 to 1."""
    parts = chain.from_iterable(part.blocks(BATCH_SIZE) for part in images)
    contest = Contest([lambda: model])
    found = contest.score(regrouped(parts, BATCH_SIZE), sum(map(len, images)), progress)
    return found.models[0].top1 or 0.0


def _kept(
    bench: _Bench, label: str, bits: int, experiment: Experiment, display: Display
) -> dict[str, tuple[float, ...]]:
    """Return column -> share of top-1 kept with each calibration seed."""
    columns, device = experiment.columns, next(bench.model.parameters()).device
    images = bench.size * len(bench.calibrations)
    listed = igq.layers(bench.model)
    chosen = execution(experiment.engine, listed, images * len(columns), device)
    nearest = Corrected(bench.model, quantize_weights(bench.model, bits))
    kept: dict[str, list[float]] = {column: [] for column in columns}
    for seed, calibration in enumerate(bench.calibrations):
        name = f"{label} W{bits}A{bits}, seed {seed}"
        ranges = igq.observe(bench.model, calibration, experiment.scheme)
        candidates = igq.fit(ranges, CHOICES, bits, display.step(f"{name}: fitting"))
        made = nearest
        if experiment.scheme.weights is WeightMethod.CORRECTED:
            progress = display.step(f"{name}: correcting the weights")
            made = igq.correct(bench.model, candidates, calibration, bits, progress=progress)
        measured = None
        if any(column.startswith("allocated") for column in columns):
            progress = display.step(f"{name}: sensitivity")
            measured = igq.sensitivity(
                bench.model, candidates, calibration, execution=chosen, progress=progress
            )
        for column in columns:
            selection = _selection(column, candidates, bits, measured)
            progress = display.step(f"{name}: {column}")
            quantized = accelerate(made.quantize(selection), chosen, max(CHOICES))
            kept[column].append(_top1(quantized, bench.images, progress) / bench.full_precision)
    return {column: tuple(shares) for column, shares in kept.items()}


def _selection(
    column: str, candidates: Candidates, bits: int, measured: Sensitivity | None
) -> Selection:
    """Return the activation quantizers of a column of the table."""
    if column == "upper bound":
        return candidates.upper_bound()
    kind, groups = column.split()
    if kind == "fixed" or measured is None:
        return candidates.select(igq.uniform(candidates.layers, int(groups)))
    limits = igq.bops(candidates, weight_bits=bits).limit(uniform=int(groups))
    return candidates.select(igq.allocate(measured, limits))


def _check(experiment: Experiment) -> None:
    unknown = [column for column in experiment.columns if column not in COLUMNS]
    if unknown:
        raise igq.InvalidArgumentError(
            f"`columns` must be among {', '.join(COLUMNS)}, but got {unknown[0]!r}."
        )
    if not set(experiment.bits) <= set(BITS):
        raise igq.InvalidArgumentError(
            f"`bits` must be among {list(BITS)}, of which there are published numbers, "
            f"but got {list(experiment.bits)}."
        )


def _found(folder: Path | None) -> list[tuple[Published, Path | None]]:
    """Return the models with ARCHITECTURE.safetensors in a folder; all without a folder."""
    if folder is None:
        return [(row, None) for row in PUBLISHED]
    files = [(row, folder / f"{row.architecture}.safetensors") for row in PUBLISHED]
    found: list[tuple[Published, Path | None]] = [(row, f) for row, f in files if f.is_file()]
    if not found:
        names = ", ".join(file.name for _, file in files)
        raise DataError(f"`weights_dir` must hold one of {names}, but {folder} holds none.")
    return found
