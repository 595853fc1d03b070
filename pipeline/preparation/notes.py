"""The notes of an exported model: where it comes from, what it costs, and what is known of it.

`igq.formats` shows them in the JSON files beside the manifest, and in the model card.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from igq import Layer, Limits, Setting, Unit
from igq.costs import bops_table, size_table
from pipeline.data import class_names
from pipeline.data.classes import names_of
from pipeline.preparation.purposes import CALIBRATION
from pipeline.preparation.study import Study
from pipeline.study.final import Final
from pipeline.study.seals import read_definition, read_sealed
from pipeline.study.trials import Trial
from search_spaces import SearchSpace

SCORED = ("kl", "kl_interval", "top1", "top1_interval")
"""The parts of a comparison that are noted as scores."""


def notes_of(study: Study, taken: Trial, final: Final | None) -> dict[str, Any]:
    """Return the notes of a trial of a study."""
    written, result = read_definition(study.folder.path), _result(study, taken)
    allocation = taken.proposal.allocation
    parameters = sum(parameter.numel() for parameter in study.model.parameters())
    final_kl = None
    if final is not None and taken.number in final.kls:
        final_kl = final.kl(taken.number)
    return {
        "preprocessing": asdict(study.preprocessing),
        "classes": _classes(study),
        "space": written["space"],
        "study": written["key"],
        "model": written["model"],
        "trial": taken.number,
        "bops": taken.proposal.costs[Unit.BOPS],
        "size": taken.proposal.costs.get(Unit.BYTES),
        **(
            {} if (ns := taken.proposal.costs.get(Unit.NANOSECONDS)) is None else {"latency_ns": ns}
        ),
        "overhead": study.limits.overhead(taken.proposal.costs),
        "search_kl": taken.kl,
        "final_kl": final_kl,
        "result": result,
        **costs_of(study.space, study.layers, parameters, allocation),
        "weight_method": study.space.weight_method.value,
        "limits": limits_of(study.limits),
        "scores": scores_of(taken, final_kl, result),
        "calibration": calibration_of(study),
        "images": {
            purpose: {"source": study.definition.sources.get(purpose), "fingerprint": fingerprint}
            for purpose, fingerprint in study.definition.images.items()
        },
        "mlflow_run": {"igq.study": written["key"], "name": f"trial-{taken.number:04d}"},
    }


def costs_of(
    space: SearchSpace, layers: Sequence[Layer], parameters: int, allocation: Mapping[str, Setting]
) -> dict[str, Any]:
    """Return what each layer costs in each unit, and all of them, with the part that is fixed."""
    tables = (
        bops_table(layers, space.scheme, space.options, space.base_bits),
        size_table(layers, space.options, parameters),
    )
    costs: dict[str, dict[str, Any]] = {}
    offered = {name: next(iter(row)) for name, row in tables[0].layers.items()}
    chosen = {name: allocation[name].limited_to(like) for name, like in offered.items()}
    for table in tables:
        for name, setting in chosen.items():
            costs.setdefault(name, {})[table.unit.value] = table.cost(name, setting)
    return {
        "costs": costs,
        "totals": {table.unit.value: table.of(chosen) for table in tables},
        "fixed_costs": {t.unit.value: t.fixed for t in tables},
    }


def limits_of(limits: Limits) -> dict[str, Any]:
    """Return the most that the search allowed, by unit."""
    return {limit.table.unit.value: limit.most for limit in limits.bounded}


def scores_of(
    taken: Trial, final_kl: float | None, result: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the scores of a trial; on unseen images where the search ended with it as its best."""
    scores: dict[str, Any] = {
        "search": {"kl": taken.kl, "images": len(taken.observation)},
        "final": {"kl": final_kl},
        "validation": None,
    }
    if result is not None:
        row = result["comparisons"][0]
        measured = {name: row[name] for name in SCORED if row.get(name) is not None}
        scores["validation"] = {**result["validation"], **measured}
    return scores


def calibration_of(study: Study) -> dict[str, Any]:
    """Return which images the study was calibrated on, so that they can be drawn again."""
    definition = study.definition
    return {
        "source": definition.sources.get(CALIBRATION),
        "images": study.space.calibration_images,
        "seed": definition.seed,
        "fingerprint": definition.images[CALIBRATION],
    }


def _classes(study: Study) -> list[str] | None:
    """Return the name of each class, where the images or the user told them; else None."""
    known = class_names(set(study.definition.sources.values()))
    classes, num_classes = study.preprocessing.classes, study.preprocessing.num_classes
    if known is not None or classes is None or set(classes.values()) != set(range(num_classes)):
        return known
    return names_of(num_classes, classes)


def _result(study: Study, taken: Trial) -> dict[str, Any] | None:
    """Return the result of the search if it is that of this trial."""
    if not study.folder.result.exists():
        return None
    result = read_sealed(study.folder.result)
    return result if result["best"]["trial"] == taken.number else None
