"""The search against what a good engineer would write instead in a hundred lines.

    python -m benchmarks.search_vs_plain [--space demo] [--trials 40] [--workers 1]

Plain: Ray Tune with OptunaSearch, MLflow's callback and this package's quantizer, a function as
trainable; over the budget it reports by how much, without evaluating. Both search the same space
with the same images, budget and quantizers. What the search takes before its first trial, both harm
tables and compiling, counts for its seconds; harms count for its image-forwards. Held-out KL of the
best so far is computed afterwards, on the validation images, and costs neither anything.
"""

import argparse
import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

import igq
import search_spaces
from benchmarks.real import machine
from igq.evaluation import log_probabilities
from igq.fisher import predicted_forwards
from igq.sensitivity import sensitivity_forwards
from pipeline.calibrating import sliced_as
from pipeline.cluster import RayCluster
from pipeline.config import Request
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.preparation import costs, load_model
from pipeline.screen import Screen
from pipeline.searching import search
from pipeline.study import State, Trial, best
from pipeline.tracking import MlflowTracker

OVER_BUDGET = 100.0
"""What plain reports, and more, for an allocation that costs too much: above any KL."""


@dataclass(frozen=True)
class Step:
    """A trial of either search that was better than all before it."""

    seconds: float
    """Since the search began; of plain, since its first trial."""
    forwards: float
    """Images that passed the quantized model so far."""
    allocation: igq.Allocation


def space_of(name: str) -> search_spaces.SearchSpace:
    """A bundled space; with the nearest weights, as the plain pipeline takes them."""
    nearest = {"weight_method": search_spaces.WeightMethod.NEAREST}
    return search_spaces.load(name).model_copy(update=nearest)


def plain(
    model: Any, candidates: igq.Candidates, images: Images, options: argparse.Namespace
) -> list[Step]:
    """The plain search; its improvements."""
    space = space_of(options.space)
    _, table, budget = costs(space, model)
    reference = log_probabilities(model, images.values)

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
                    trainable, model=model, values=images.values, reference=reference
                ),
                {"cpu": 1},
            ),
            param_space={name: tune.choice(sorted(costs)) for name, costs in table.layers.items()},
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
    """Notes when each trial ended."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.started = time.perf_counter()
        self.ended: list[tuple[float, Trial]] = []

    def record(self, trial: Trial) -> None:
        super().record(trial)
        self.ended.append((time.perf_counter(), trial))


def ours(request: Request, options: argparse.Namespace, forwards: float, budget: int) -> list[Step]:
    """This package's search, whose harms took `forwards`; its improvements."""
    tracker = Timed(f"sqlite:///{request.out}.db")
    with Screen(Console(file=io.StringIO())) as screen:
        result = search(request, RayCluster(workers=options.workers), tracker, screen)
    steps: list[Step] = []
    seen: list[Trial] = []
    for now, trial in tracker.ended:
        forwards += len(trial.kls)
        seen.append(trial)
        if best(seen, budget) is trial:
            steps.append(Step(now - tracker.started, forwards, trial.proposal.allocation))
    complete = sum(trial.state is State.COMPLETE for trial in result.trials)
    print(f"search: {len(result.trials)} trials, {complete} saw every image")
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    ranges = igq.observe(model, images["calibration"].values, **sliced_as(space))
    candidates = igq.fit(ranges, space.num_groups, space.base_bits[1])
    harm = sensitivity_forwards(model, candidates, space.sensitivity_images)
    harm += predicted_forwards(space.search_images, len(space.num_groups))

    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            space,
            Path(folder, "study"),
            weights=options.weights,
            images=name,
            trials=options.trials,
            seed=options.seed,
            rivals=False,
        )
        found = ours(request, options, harm, costs(space, model)[2])
    ray.shutdown()
    ray.init("local", num_cpus=options.workers, log_to_driver=False)
    written = plain(model, candidates, images["search"], options)

    reference = log_probabilities(model, images["validation"].values)

    def held_out(allocation: igq.Allocation) -> float:
        quantized = igq.quantize(model, candidates.select(allocation), space.base_bits[0])
        kl = igq.evaluate(quantized, images["validation"].values, reference).kl
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
