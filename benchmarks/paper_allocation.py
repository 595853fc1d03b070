"""The best of studies beside the paper's allocation: its groups, and its integer program.

    python -m benchmarks.paper_allocation studies/vit8/seed-* studies/deit8/seed-*

For each study the integer program is solved once more, within the same budget and over
sensitivities of the same images, for groups of channels and of softmax rows as in the paper. All
else is the study's: calibration images, corrected weights, rows that keep their sum. Both are
measured on the study's validation images, and differences are paired. Results are kept in --out and
read from there when they are wanted again.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import igq
from benchmarks.real import machine
from igq import InputMethod, Rotation, SoftmaxMethod
from igq.evaluation import log_probabilities
from igq.quantized import accelerate, assemble, fastest, select_weights
from igq.settings import plain
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.evaluation.validation import BEST, load_validation
from pipeline.files import read_json, write_json
from pipeline.intervals import interval
from pipeline.preparation.calibration import Calibration
from pipeline.preparation.costs.limits import limits_of
from pipeline.preparation.models import load_model
from pipeline.preparation.parts.cache import load_sensitivity, save_sensitivity
from pipeline.study.definition import digest
from pipeline.study.folder import Folder
from pipeline.study.progress import SilentDisplay
from search_spaces import SearchSpace

PAPER = {
    "softmax_method": SoftmaxMethod.UNIT_ROWS,
    "input_method": InputMethod.CHANNELS,
    "rotation": Rotation.NONE,
    "num_groups": (2, 4, 6, 8, 10, 12, 16, 24),
}
"""The paper's groups, and the numbers of them that a layer may have."""
SHOWN = (BEST, "ilp", "fisher", "uniform", "random", "repaired")


@dataclass(frozen=True)
class Row:
    """A study's contenders and the paper's allocation, by KL and top-1."""

    experiment: str
    seed: int
    kls: Mapping[str, float]
    top1: Mapping[str, float]
    paper_kl: float
    paper_top1: float
    less: float
    """KL of the best less the paper's."""
    half: float
    """Half the 95 % interval of that."""


def paper_result(definition: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return KL and answer of the paper's allocation on each validation image of a study."""
    its_space = SearchSpace.model_validate(definition["space"])
    space = its_space.model_copy(update=PAPER)
    changed = space.model_dump(mode="json")
    path = out / f"{digest([changed, definition['model'], definition['images']])}.json"
    if path.exists():
        return dict(read_json(path))
    model, key = load_model(space, Path(definition["weights"]))
    images = _images(definition, its_space, Preprocessing.of(model))
    calibration = Calibration(Folder(out), space, key, images["calibration"].fingerprint)
    calibration.compute(model, images["calibration"], SilentDisplay())
    candidates = calibration.candidates(model)
    limits = limits_of(space, candidates.layers, sum(p.numel() for p in model.parameters()))
    kept = out / "cache" / f"harm_{digest([calibration.candidates_file.stem])}.json"
    if not kept.exists():
        seen = images["search"].loaded()[: space.sensitivity_images]
        save_sensitivity(kept, igq.sensitivity(model, candidates, seen, execution=fastest()))
    allocation = igq.allocate(load_sensitivity(kept), limits)
    corrected, weights = calibration.weights(model)
    chosen = select_weights(weights, allocation, candidates.layers)
    made = assemble(corrected, candidates.select(allocation), chosen)
    accelerate(made, fastest(), max(space.num_groups))
    shown = images["validation"]
    reference = log_probabilities(model, shown.loaded())
    score = igq.evaluate(made, shown.loaded(), reference, shown.labels)
    assert score.kls is not None
    assert score.correct is not None
    found = {
        "allocation": plain(allocation),
        "bops": limits.table.of(allocation),
        "kls": score.kls.tolist(),
        "correct": score.correct.tolist(),
    }
    write_json(path, found)
    return found


def _images(
    definition: Mapping[str, Any], space: SearchSpace, preprocessing: Preprocessing
) -> dict[str, Images]:
    """Return the very images of a study."""
    sources, counts = definition["sources"], space.model_dump()
    opened = {name: open_source(name, preprocessing) for name in set(sources.values())}
    wanted = {
        purpose: (opened[sources[purpose]], 0, counts[f"{purpose}_images"])
        for purpose in ("calibration", "search", "validation", "final")
    }
    images = draw(wanted, definition["seed"])
    for purpose, drawn in images.items():
        if drawn.fingerprint != definition["images"][purpose]:
            raise SystemExit(f"the {purpose} images in {sources[purpose]} are not the study's.")
    return images


def row(study: Path, out: Path) -> Row:
    """Return a study beside the paper's allocation."""
    definition = read_json(Folder(study).study)
    contenders = {m.name: m for m in load_validation(Folder(study).validation).measured}
    paper = paper_result(definition, out)
    pairs = zip(contenders[BEST].kls, paper["kls"], strict=True)
    less = interval([b - p for b, p in pairs])
    return Row(
        definition["space"]["name"],
        definition["seed"],
        {name: fmean(m.kls) for name, m in contenders.items()},
        {name: fmean(m.correct or [False]) for name, m in contenders.items()},
        fmean(paper["kls"]),
        fmean(paper["correct"]),
        less.mean,
        less.high - less.mean,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("studies/paper"))
    options = parser.parse_args()
    rows = [row(study, options.out) for study in options.studies]
    names = [name for name in SHOWN if any(name in r.kls for r in rows)]
    print(machine())
    last = "paper | difference in KL (best minus paper) | as a share"
    print(f"| study | seed | {' | '.join(names)} | {last} |")
    print("|---" * (len(names) + 5) + "|")
    for r in rows:
        kls = " | ".join(f"{r.kls[n]:.3f}" if n in r.kls else "" for n in names)
        share = r.less / r.paper_kl
        print(
            f"| {r.experiment} | {r.seed} | {kls} | {r.paper_kl:.3f} "
            f"| {r.less:+.3f} ± {r.half:.3f} | {share:+.1%} |"
        )
    for experiment in dict.fromkeys(r.experiment for r in rows):
        group = [r for r in rows if r.experiment == experiment]
        print(f"{experiment}, {len(group)} seeds, mean ± half a 95 % interval over seeds:")
        for name in (n for n in names if n != BEST and all(n in r.kls for r in group)):
            _line(name, [r.kls[BEST] / r.kls[name] - 1 for r in group])
        _line("paper", [r.less / r.paper_kl for r in group])
        _points("paper", [r.top1[BEST] - r.paper_top1 for r in group])


def _line(name: str, shares: list[float]) -> None:
    lower = sum(share < 0 for share in shares)
    over = interval(shares) if len(shares) > 1 else None
    half = f" ± {over.high - over.mean:.1%}" if over else ""
    print(f"  best minus {name}: {fmean(shares):+.1%}{half}, lower in {lower} of {len(shares)}")


def _points(name: str, differences: list[float]) -> None:
    over = interval(differences) if len(differences) > 1 else None
    half = f" ± {over.high - over.mean:.1%}" if over else ""
    print(f"  top-1, best minus {name}: {fmean(differences):+.1%}{half}")


if __name__ == "__main__":
    main()
