"""Profile: the latency of each operator of a model with each setting, on the machine at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import fmean, linear_regression, median, quantiles
from time import perf_counter

import torch
from torch import Tensor, nn

import igq
from igq import Layer, RuntimeLibraryError, Setting, UnsupportedModelError
from igq.costs import Operator, Profile, Timing, latency_table
from igq.costs.latency import NANOSECONDS_IN_MS, whole_setting
from igq.progress import Progress
from igq.runtime import deploy, targets
from igq.runtime.deployment import DeployedBlock
from igq.runtime.probes import Probe, Shape, probe, shapes
from igq.settings import Options
from igq.threads import with_threads
from pipeline.data import Preprocessing
from pipeline.preparation.costs.latency import this_machine, write_profile
from pipeline.study.progress import Display
from search_spaces import ModelSpec, SearchSpace, UniformBudget, load, names

Key = tuple[Shape, Setting] | int
"""An operator with a setting, or the number of groups of a whole model."""
FITTED_FROM = 3
"""Numbers of groups that a line is fitted through, where not all are measured."""
IMAGES = 2
"""Random images that bounds of the whole model are observed on."""


GROUPS = (1, 2, 3, 4, 6, 8, 12, 24)
"""Numbers of groups that are measured of a model without a space."""


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    >>> Effort().rounds
    50
    """

    rounds: int = 50
    """How often each operator runs, in turns with all others."""
    threads: int = 1
    seconds: float = 600.0
    """The most that measuring may take; above it numbers of groups between are fitted by a line."""


def space_of_model(name: str) -> SearchSpace:
    """Return the space of this name or file, or one of a timm model: 4 bits, the usual groups.

    Raises:
        SearchSpaceError: the file breaks a rule.

    >>> space_of_model("vit_tiny_patch16_224").model.name
    'vit_tiny_patch16_224'
    """
    if name in names() or Path(name).suffix in (".yaml", ".yml"):
        return load(name)
    return SearchSpace(
        name=name,
        model=ModelSpec(name=name),
        weight_bits=4,
        activation_bits=4,
        num_groups=GROUPS,
        budget=UniformBudget(uniform=8),
    )


def profile(
    space: SearchSpace, target: str, out: Path, display: Display, effort: Effort | None = None
) -> Profile:
    """Measure the operators of a space's model, and write the latency table.

    Weights are random: values do not change the time.

    Raises:
        RuntimeLibraryError: the runtime is not compiled here.
        StudyError: the folder of `out` cannot be written.
        UnsupportedModelError: timm has no such model, or not all of it becomes operators.
    """
    effort = effort or Effort()
    if not targets():
        raise RuntimeLibraryError(
            "a latency table must be measured with the compiled runtime, which is not here: "
            "`pip install .` with a C++ compiler."
        )
    model = igq.create(space.model.name, space.model.arguments)
    layers = igq.layers(model)
    with with_threads(effort.threads):
        wholes = _wholes(model, space)
        display.say(f"{len(shapes(layers, space.scheme))} shapes of operator on {target}.")
        measured, fitted = _measured(layers, space, wholes, effort, display)
    timed = {key: timing_of(times) for key, times in measured.items()}
    operators = _operators(layers, space, timed, fitted)
    made = Profile(
        target,
        this_machine(effort.threads),
        version("igq-vit"),
        space.model.name,
        space.scheme,
        operators,
        rest_ms=0.0,
    )
    made = replace(
        made, rest_ms=_rest(made, layers, space, {g: timed[g].median_ms for g in wholes})
    )
    write_profile(made, out)
    return made


def _wholes(model: nn.Module, space: SearchSpace) -> dict[int, Probe]:
    """Return the whole model with its fewest and its most groups everywhere.

    Raises:
        UnsupportedModelError: a block does not become operators as a whole.
    """
    groups, (weight_bits, bits) = (space.num_groups[0], space.num_groups[-1]), space.base_bits
    size = Preprocessing.of(model).config["input_size"]
    images = torch.rand(IMAGES, *size, generator=torch.Generator().manual_seed(0))
    candidates = igq.fit(igq.observe(model, images, space.scheme), groups, bits)
    made: dict[int, Probe] = {}
    for number in groups:
        chosen = candidates.select(igq.uniform(candidates.layers, number))
        deployed = deploy(igq.quantize(model, chosen, weight_bits))
        maps = sum(layer.kind is igq.Kind.SOFTMAX for layer in candidates.layers)
        if maps != sum(isinstance(module, DeployedBlock) for module in deployed.modules()):
            raise UnsupportedModelError(
                "a model must be a plain ViT or DeiT to be profiled, whose blocks are operators, "
                f"but attention of {space.model.name} runs in torch."
            )
        made[number] = running(deployed, images[:1])
    return made


def running(model: nn.Module, image: Tensor) -> Probe:
    """Return a whole model as a probe."""

    def run() -> Tensor:
        with torch.inference_mode():
            made: Tensor = model(image)
        return made

    return Probe(run, ())


def _measured(
    layers: Sequence[Layer],
    space: SearchSpace,
    wholes: Mapping[int, Probe],
    effort: Effort,
    display: Display,
) -> tuple[dict[Key, list[float]], bool]:
    """Return the seconds of each operator and of the whole models, and whether a line is fitted."""
    runs = _probes(layers, space, space.num_groups)
    for number, whole in wholes.items():
        runs[number] = whole
    each = sum(times[0] for times in in_turns(runs, 1).values())
    fitted = each * effort.rounds > effort.seconds and len(space.num_groups) > FITTED_FROM
    if fitted:
        few = (
            space.num_groups[0],
            space.num_groups[len(space.num_groups) // 2],
            space.num_groups[-1],
        )
        kept = {s for layer in layers for s in _settings(layer, replace_groups(space, few))}
        runs = {k: run for k, run in runs.items() if isinstance(k, int) or k[1] in kept}
    progress = display.step(f"measuring {len(runs)} operators in {effort.rounds} rounds")
    return in_turns(runs, effort.rounds, progress), fitted


def replace_groups(space: SearchSpace, num_groups: Sequence[int]) -> Options:
    """Return the options of a space with other numbers of groups."""
    return replace(space.options, num_groups=tuple(num_groups))


def _probes(
    layers: Sequence[Layer], space: SearchSpace, num_groups: Sequence[int]
) -> dict[Key, Probe]:
    """Return the operator of each shape and setting that the runtime can run."""
    runs: dict[Key, Probe] = {}
    for shape, (first, *_) in shapes(layers, space.scheme).items():
        for setting in _settings(first, replace_groups(space, num_groups)):
            if (made := probe(first, space.scheme, setting)) is not None:
                runs[shape, setting] = made
    return runs


def _settings(layer: Layer, options: Options) -> list[Setting]:
    """Return every setting that the layer's operator can have, each part given."""
    weights, activations, groups = (
        options.weight_bits,
        options.activation_bits,
        options.num_groups,
    )
    every = (Setting(w, a, g) for w in weights for a in activations for g in groups)
    return list(dict.fromkeys(whole_setting(layer, setting, (0, 0)) for setting in every))


def in_turns(
    runs: Mapping[Key, Probe], rounds: int, progress: Progress = igq.progress.silent
) -> dict[Key, list[float]]:
    """Return the seconds of each run in each round; every round has an order of its own.

    An operator finds its inputs in the cache, and its weights where another left them, as in a
    model.

    >>> seconds = in_turns({1: Probe(lambda: torch.zeros(1), ())}, rounds=3)
    >>> len(seconds[1])
    3
    """
    order, shuffle = list(runs), Random(0)
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for done in range(rounds):
        shuffle.shuffle(order)
        for key in order:
            runs[key].touch()
            start = perf_counter()
            runs[key].run()
            seconds[key].append(perf_counter() - start)
        progress((done + 1) / rounds)
    return seconds


def timing_of(seconds: Sequence[float]) -> Timing:
    """Return the median and the interquartile range.

    >>> timing_of([0.001, 0.002, 0.003, 0.004, 0.005])
    Timing(median_ms=3.0, spread_ms=2.0, fitted=False)
    """
    if len(seconds) < 2:
        return Timing(1e3 * seconds[0], 0.0)
    low, _, high = quantiles(seconds, n=4, method="inclusive")
    return Timing(1e3 * median(seconds), 1e3 * (high - low))


def _operators(
    layers: Sequence[Layer], space: SearchSpace, timed: Mapping[Key, Timing], fitted: bool
) -> tuple[Operator, ...]:
    made = []
    for shape, members in shapes(layers, space.scheme).items():
        wanted = _settings(members[0], space.options)
        timings = {s: timed[shape, s] for s in wanted if (shape, s) in timed}
        if fitted:
            timings = with_line(timings, wanted)
        size = (shape.tokens, shape.channels, shape.outputs)
        made.append(Operator(shape.kind, size, tuple(layer.name for layer in members), timings))
    return tuple(made)


def with_line(
    timings: Mapping[Setting, Timing], wanted: Sequence[Setting]
) -> dict[Setting, Timing]:
    """Return timings with those between, on a line in groups for each combination of bits.

    >>> known = {Setting(4, 4, 1): Timing(1.0, 0.0), Setting(4, 4, 9): Timing(3.0, 0.0)}
    >>> with_line(known, [Setting(4, 4, 5)])[Setting(4, 4, 5)]
    Timing(median_ms=2.0, spread_ms=0.0, fitted=True)
    """
    found = dict(timings)
    for setting in wanted:
        alike = {s: t for s, t in timings.items() if replace(s, num_groups=None) == _bits(setting)}
        if setting in found or len(alike) < 2:
            continue
        groups = [float(s.num_groups or 1) for s in alike]
        slope, start = linear_regression(groups, [t.median_ms for t in alike.values()])
        spread = max(timing.spread_ms for timing in alike.values())
        at = max(0.0, start + slope * (setting.num_groups or 1))
        found[setting] = Timing(at, spread, fitted=True)
    return {setting: found[setting] for setting in (*wanted, *timings) if setting in found}


def _bits(setting: Setting) -> Setting:
    return replace(setting, num_groups=None)


def _rest(
    made: Profile, layers: Sequence[Layer], space: SearchSpace, whole_ms: Mapping[int, float]
) -> float:
    """Return the ms of the whole model that no operator stands for."""
    rests = []
    for number, ms in whole_ms.items():
        weight_bits, bits = space.base_bits
        options = Options((weight_bits,), (bits,), (number,))
        table = latency_table(made, layers, space.scheme, options)
        rests.append(ms - table.maximum / NANOSECONDS_IN_MS)
    return max(0.0, fmean(rests))
