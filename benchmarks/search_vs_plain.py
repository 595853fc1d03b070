"""The search against a hundred lines that a good engineer would write instead.

    python -m benchmarks.search_vs_plain [--space demo] [--trials 40] [--workers 1]

Plain: Ray Tune with OptunaSearch, MLflow's callback and this package's quantizer, a function as
trainable; over the budget it reports by how much, without evaluating. Both search the same space
with the same images, budget and quantizers. The work of the search before its first trial, both
tables of sensitivities and compiling, counts for its seconds and its image-forward-passes. Held-out
KL of the best so far is computed afterwards, on the validation images, and costs neither anything.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch

import igq
import pipeline
import search_spaces
from benchmarks.real import machine
from igq.evaluation import log_probabilities
from igq.sensitivities import predicted_passes, sensitivity_passes
from pipeline.cluster.ray import RayCluster
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.preparation.costs.limits import limits_of
from pipeline.preparation.models import load_model
from pipeline.study.best import best
from pipeline.study.progress import SilentDisplay
from pipeline.study.trials import State, Trial
from pipeline.tracking.mlflow import MlflowTracker

OVER_BUDGET = 100.0
"""The least value that plain reports for an allocation over the budget: above any KL."""


@dataclass(frozen=True)
class Step:
    """A trial of either search that was better than all before it."""

    seconds: float
    """Since the search began; of plain, since its first trial."""
    forwards: float
    """Images that passed the quantized model so far."""
    allocation: igq.Allocation


def space_of(name: str) -> search_spaces.SearchSpace:
    """Return a bundled space with nearest codes, which the plain pipeline takes."""
    nearest = {"weight_method": igq.WeightMethod.NEAREST}
    return search_spaces.load(name).model_copy(update=nearest)


def plain(
    model: Any, candidates: igq.Candidates, images: Images, options: argparse.Namespace
) -> list[Step]:
    """Run the plain search; return its improvements."""
    space = space_of(options.space)
    limits = limits_of(space, candidates.layers, _parameters(model))
    table, budget = limits.table, limits.budget
    reference = log_probabilities(model, images.loaded())

    def trainable(config: dict[str, int], model: Any, values: Any, reference: Any) -> None:
        allocation = igq.Allocation.of(config)
        over = table.of(allocation) / budget - 1
        if over > 0:
            tune.report({"kl": OVER_BUDGET * (1 + over)})
            return
        quantized = igq.quantize(model, candidates.select(allocation), space.base_bits[0])
        tune.report({"kl": igq.evaluate(quantized, values, reference).kl})

    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    trainable, model=model, values=images.loaded(), reference=reference
                ),
                {"cpu": 1},
            ),
            param_space={name: tune.choice(list(space.num_groups)) for name in limits.names},
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(seed=options.seed),
                metric="kl",
                mode="min",
                num_samples=options.plain_trials,
                max_concurrent_trials=options.workers,
                time_budget_s=options.plain_seconds,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[
                    MLflowLoggerCallback(
                        tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="plain"
                    )
                ],
            ),
        )
        results = tuner.fit()
    ended = sorted(
        (r.metrics["timestamp"] - start, r.metrics["kl"], r.config)
        for r in (results[i] for i in range(len(results)))
        if r.metrics and "kl" in r.metrics and r.config
    )
    steps: list[Step] = []
    least, evaluated = OVER_BUDGET, 0
    for seconds, kl, config in ended:
        evaluated += kl < OVER_BUDGET
        if kl < least:
            least = kl
            allocation = igq.Allocation.of(config)
            steps.append(Step(seconds, float(evaluated * len(images)), allocation))
    print(f"plain: {len(ended)} trials, {evaluated} within the budget")
    return steps


class Timed(MlflowTracker):
    """A tracker that notes when each trial ended."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.started = time.perf_counter()
        self.ended: list[tuple[float, Trial]] = []

    def record(self, trial: Trial) -> None:
        super().record(trial)
        self.ended.append((time.perf_counter(), trial))


def ours(request: pipeline.Request, workers: int, forwards: float) -> list[Step]:
    """Run this package's search, whose sensitivities took `forwards`; return its improvements."""
    tracker = Timed(f"sqlite:///{request.out}.db")
    result = pipeline.run(request, RayCluster(workers=workers), tracker, SilentDisplay())
    budget = result.study.budget
    steps: list[Step] = []
    seen: list[Trial] = []
    for now, trial in tracker.ended:
        forwards += len(trial.observation)
        seen.append(trial)
        if best(seen, budget) is trial:
            steps.append(Step(now - tracker.started, forwards, trial.proposal.allocation))
    complete = sum(trial.state is State.COMPLETE for trial in result.trials)
    print(f"search: {len(result.trials)} trials, {complete} saw every image")
    return steps


def _parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="demo")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--plain-trials", type=int, default=400)
    parser.add_argument("--plain-seconds", type=float, default=300)
    parser.add_argument("--validation-images", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    space = space_of(options.space)
    model = load_model(space, options.weights)[0]
    name = options.images or space.images
    assert name is not None, "--images must be given, as the space names none"
    source = open_source(name, Preprocessing.of(model))
    counts = {
        "calibration": (space.calibration_images, space.calibration_images),
        "search": (space.search_images, space.search_images),
        "validation": (2, max(2, options.validation_images or space.validation_images)),
    }
    images = draw({use: (source, *count) for use, count in counts.items()}, options.seed)
    ranges = igq.observe(model, images["calibration"].loaded(), space.scheme)
    candidates = igq.fit(ranges, space.num_groups, space.base_bits[1])
    layers, groups = candidates.layers, len(space.num_groups)
    before = sensitivity_passes(model, layers, groups, space.sensitivity_images)
    before += predicted_passes(space.search_images, len(space.num_groups))

    with tempfile.TemporaryDirectory() as folder:
        request = pipeline.Request(
            space,
            Path(folder, "study"),
            weights=options.weights,
            images=name,
            trials=options.trials,
            seed=options.seed,
            rivals=False,
            figures=False,
        )
        found = ours(request, options.workers, before)
    ray.shutdown()
    ray.init("local", num_cpus=options.workers, log_to_driver=False)
    written = plain(model, candidates, images["search"], options)

    reference = log_probabilities(model, images["validation"].loaded())

    def held_out(allocation: igq.Allocation) -> float:
        quantized = igq.quantize(model, candidates.select(allocation), space.base_bits[0])
        kl = igq.evaluate(quantized, images["validation"].loaded(), reference).kl
        assert kl is not None  # there was a reference
        return kl

    print(f"\n{machine()}; {options.space}, {options.workers} workers\n")
    print("| | seconds | image-forwards | held-out KL of the best so far |\n|---|---|---|---|")
    for label, steps in (("search", found), ("plain", written)):
        for step in steps:
            kl = held_out(step.allocation)
            print(f"| {label} | {step.seconds:.1f} | {step.forwards:.0f} | {kl:.4f} |")


if __name__ == "__main__":
    main()
