"""A study, opened: its definition, model, layers, limits and images, resolved once.

Search, export, reports and benchmarks all begin here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from igq import Layer, Limits, Scheme, WeightsError, layers
from igq.costs import Number, Profile
from igq.evaluation import log_probabilities
from igq.quantized import Execution
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.data.classes import read_classes
from pipeline.errors import DataError, StudyError
from pipeline.evaluation.execution import execution
from pipeline.preparation.calibration import Calibration
from pipeline.preparation.costs.latency import elsewhere, read_profile
from pipeline.preparation.costs.limits import limits_of
from pipeline.preparation.models import device, load_model, with_num_classes
from pipeline.preparation.parts.draws import draw_shared
from pipeline.preparation.parts.shared import Results
from pipeline.preparation.purposes import (
    CALIBRATION,
    FINAL,
    SEARCH,
    VALIDATION,
    counts_of,
    fewer_than_asked,
    image_sources,
    notes_on,
)
from pipeline.proposals import read_trials
from pipeline.study.definition import Definition, as_begun, check_same
from pipeline.study.final import Final, load_final
from pipeline.study.folder import Folder, check_folder, check_unlocked
from pipeline.study.progress import Display
from pipeline.study.request import Request
from pipeline.study.seals import read_definition
from pipeline.study.trials import Trial
from search_spaces import LatencyBudget, SearchSpace

PROBED = 2
"""Search images that the full-precision model is tried on before anything is written."""


@dataclass(frozen=True, eq=False)
class Study:
    """A study with everything that its folder and its request decide."""

    folder: Folder
    definition: Definition
    model: nn.Module
    """The full-precision model, rotated as the scheme says."""
    layers: tuple[Layer, ...]
    limits: Limits
    images: Mapping[str, Images]
    """Purpose -> images; empty for a study that was opened from its folder."""
    shared: Path | None = None
    """The folder of results that studies share; None where this one shares none."""

    @classmethod
    def create(
        cls,
        request: Request,
        display: Display,
        check: Callable[[], None] = lambda: None,
        shared: Path | None = None,
    ) -> "Study":
        """Resolve a request; nothing is written but what searches share, into `shared`.

        `check` is called before images are read, which takes long.

        Raises:
            IgqError: anything that the request gets wrong.
        """
        space = with_num_classes(request.space, request.num_classes, request.weights)
        request, folder = as_begun(replace(request, space=space)), Folder(request.out)
        check_folder(folder, request.resume)
        check_unlocked(folder)
        classes = None if request.classes is None else read_classes(request.classes)
        model, key = load_model(space, request.weights, request.checkpoint_key, display.say)
        model = model.to(device())
        listed = layers(model)
        profile = latency_profile(space, display)
        limits = limits_of(space, listed, parameters_of(model), profile)
        how = Preprocessing.of(model).with_classes(classes)
        sources = image_sources(request, how)
        for note in notes_on(sources):
            display.say(note)
        check()
        progress = display.step("reading images")
        streamed = (VALIDATION, FINAL)
        results = Results(folder.path, shared, display)
        images = draw_shared(sources, request.seed, how, results, progress, streamed)
        for note in fewer_than_asked(sources, {p: len(drawn) for p, drawn in images.items()}):
            display.say(note)
        definition = _definition(request, key, images, execution_of(request, model, listed))
        definition = replace(definition, checkpoint_key=request.checkpoint_key)
        told = classes if classes is not None else sources[SEARCH][0].classes
        definition = replace(definition, classes=told, profile=profile)
        check_predictions(model, images[SEARCH], request)
        if request.resume:
            check_same(folder, definition)
            begun = read_definition(folder.path).get("begun", {})
            definition = replace(definition, begun=begun)
        return cls(folder, definition, model, listed, limits, images, shared)

    @classmethod
    def open(cls, path: Path, weights: Path | None = None) -> "Study":
        """Open the study in a folder, also one of an older version; no images are read.

        `weights` is for weights that were moved since; they must be the same ones.

        Raises:
            StudyError: there is no study, it is damaged, or the weights are others.
            WeightsError: the weights cannot be read.
        """
        folder = Folder(path)
        definition = Definition.read(folder)
        noted = Path(definition.weights) if definition.weights else None
        model, key = load_model(definition.space, weights or noted, definition.checkpoint_key)
        check_weights(key, definition.model)
        listed = layers(model)
        limits = limits_of(definition.space, listed, parameters_of(model), definition.profile)
        return cls(folder, definition, model, listed, limits, {})

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.definition.space

    @property
    def scheme(self) -> Scheme:
        """How the model is quantized."""
        return self.space.scheme

    @property
    def budget(self) -> Number:
        """The space's budget, in the unit of the first limit."""
        return self.limits.budget

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become inputs, and the classes of the model."""
        return Preprocessing.of(self.model).with_classes(self.definition.classes)

    @property
    def calibration(self) -> Calibration:
        """The files of the study's calibration."""
        definition = self.definition
        key = definition.images[CALIBRATION]
        return Calibration(self.folder, self.space, definition.model, key, self.shared)

    def drawn(self, purpose: str, display: Display) -> Images:
        """Draw the images of a purpose again, from the sources that the study notes.

        Raises:
            DataError: they cannot be read, or are not what they were.
        """
        names = self.definition.sources
        opened = {name: open_source(name, self.preprocessing) for name in set(names.values())}
        counts = counts_of(self.space, self.definition.front)
        until = list(counts)[: list(counts).index(purpose) + 1]
        wanted = {one: (opened[names[one]], *counts[one]) for one in until}
        progress = display.step("reading images")
        found = draw(wanted, self.definition.seed, progress, streamed=(VALIDATION, FINAL))[purpose]
        if found.fingerprint != self.definition.images[purpose]:
            raise DataError(
                f"the {purpose} images of {self.folder.path} must be what they were, but those of "
                f"{found.source} are others now: put back the files that the search read."
            )
        return found

    def trials(self) -> tuple[Trial, ...]:
        """Read the trials that have ended.

        Raises:
            StudyError: there is no journal.
        """
        return read_trials(self.folder.journal, self.space.name, self.limits)

    def final(self) -> Final | None:
        """Read the final round; None where there was none.

        Raises:
            StudyError: the file is damaged.
        """
        return load_final(self.folder.final)


def check_predictions(model: nn.Module, images: Images, request: Request) -> None:
    """Refuse a full-precision model that predicts no numbers on the first search images.

    Raises:
        WeightsError: a log probability, or its square, is NaN or infinite.
    """
    predicted = log_probabilities(model, images.values[:PROBED])
    if not predicted.square().isfinite().all():
        weights = request.weights or request.space.weights or "the hub"
        kind = "numbers beyond float32" if predicted.isfinite().all() else "NaN"
        raise WeightsError(
            f"the full-precision model must predict finite numbers, but gives {kind} on images of "
            f"{images.source}; likely the weights of {weights} overflow, or belong to another "
            "model."
        )


def check_weights(found: str, expected: str) -> None:
    """Refuse a model with other weights than the study's.

    Raises:
        StudyError: the hashes differ.
    """
    if found != expected:
        raise StudyError(
            f"`weights` must be those that were searched, whose hash is {expected}, "
            f"but got {found}."
        )


def latency_profile(space: SearchSpace, display: Display) -> Profile | None:
    """Return the latency table that the budget needs; warn where it is another machine's.

    Raises:
        ProfileError: the table cannot be read.
    """
    if not isinstance(space.budget, LatencyBudget) or space.budget.table is None:
        return None
    profile = read_profile(space.budget.table)
    if (warning := elsewhere(profile)) is not None:
        display.warn(warning)
    return profile


def parameters_of(model: nn.Module) -> int:
    """Return how many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def execution_of(request: Request, model: nn.Module, listed: tuple[Layer, ...]) -> Execution:
    """Return how trials are computed; a resumed study goes on as it began.

    It follows from the trials of the space, not of the request: longer and shorter searches share
    their sensitivities, and their numbers compare.
    """
    if request.resume:
        return Execution(**read_definition(request.out).get("execution", {}))
    images = request.space.trials * request.space.search_images
    return execution(request.engine, listed, images, next(model.parameters()).device)


def _definition(
    request: Request, model: str, images: Mapping[str, Images], execution: Execution
) -> Definition:
    weights = request.weights or request.space.weights
    return Definition(
        space=request.space,
        weights=str(Path(weights).absolute()) if weights else "",
        model=model,
        images={purpose: drawn.fingerprint for purpose, drawn in images.items()},
        sources={purpose: drawn.source for purpose, drawn in images.items()},
        seed=request.seed,
        sampler=request.sampler,
        execution=execution,
        front=request.front,
    )
