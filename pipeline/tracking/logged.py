"""The names and values that a trial is logged under, whatever it is logged to."""

from collections.abc import Mapping
from itertools import accumulate

from igq import Unit
from igq.costs import Number
from pipeline.study.shape import means_by_kind, means_by_third
from pipeline.study.trials import State, Trial

Limits = Mapping[Unit, Number]
"""Unit -> the most that a trial may cost."""


def run_name(trial: Trial) -> str:
    """Return a name that tells: the number, who proposed it, and what came of it.

    >>> from igq import Allocation
    >>> from pipeline.study.trials import Origin, Proposal
    >>> proposal = Proposal(16, Origin.SAMPLER, Allocation.of({"fc": 2}), {Unit.BOPS: 9})
    >>> run_name(Trial(proposal, State.OVER_BUDGET))
    '0016 sampler over budget'
    """
    start = f"{trial.number:04d} {trial.proposal.origin}"
    if trial.state is State.COMPLETE and trial.kl is not None:
        return f"{start} KL {trial.kl:.3g}"
    return f"{start} {trial.state.value.replace('_', ' ')}"


def reason(trial: Trial, limits: Limits) -> str | None:
    """Say why a trial did not see every image; None for one that did.

    >>> from igq import Allocation
    >>> from pipeline.study.trials import Origin, Proposal
    >>> proposal = Proposal(16, Origin.SAMPLER, Allocation.of({"fc": 2}), {Unit.BOPS: 9})
    >>> reason(Trial(proposal, State.OVER_BUDGET), {Unit.BOPS: 8})
    'over the limit: 9 BOPs, where 8 BOPs are allowed'
    """
    if trial.state is State.FAILED:
        return trial.error or "failed"
    if trial.state is State.PRUNED:
        return f"pruned after {len(trial.observation)} images: no better than the best by then"
    if trial.state is State.COMPLETE:
        return None
    over = (
        f"{unit.words(cost)}, where {unit.words(limits[unit])} are allowed"
        for unit, cost in trial.proposal.costs.items()
        if unit in limits and cost > limits[unit]
    )
    return f"over the limit: {'; '.join(over) or trial.proposal.price}"


def params(trial: Trial, layers: bool = False) -> dict[str, str]:
    """Return the parameters of a trial: means by depth and by kind, and single layers if asked."""
    allocation = trial.proposal.allocation
    means = means_by_third(allocation) | means_by_kind(allocation)
    named = {name: f"{mean:g}" for name, mean in means.items()}
    if layers:
        named |= {f"layer.{name}": str(setting) for name, setting in allocation.items()}
    return named | {"origin": str(trial.proposal.origin)}


def tags(trial: Trial, limits: Limits) -> dict[str, str]:
    """Return the tags of a trial, all in the namespace `igq`, and MLflow's note of its reason."""
    named = {"igq.origin": str(trial.proposal.origin), "igq.state": str(trial.state)}
    if trial.node:
        named["igq.node"] = trial.node
    if trial.error:
        named["igq.error"] = trial.error
    if (why := reason(trial, limits)) is not None:
        named |= {"igq.reason": why, "mlflow.note.content": why}
    return named


def surroundings(known: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of the machine and the source; the commit has MLflow's own name.

    >>> surroundings({"host": "one", "commit": "0123abc"})["mlflow.source.git.commit"]
    '0123abc'
    """
    named = {f"igq.system.{name}": value for name, value in known.items() if name != "commit"}
    if not named:
        return {}
    named |= {"mlflow.source.name": "igq search", "mlflow.source.type": "LOCAL"}
    if "commit" in known:
        named["mlflow.source.git.commit"] = known["commit"]
    return named


def metrics(trial: Trial) -> dict[str, float]:
    """Return the metrics of a trial that have one value.

    Only a trial that saw every image has `kl`, so that sorting by it never crowns one that was
    stopped early.
    """
    values = dict(trial.proposal.metrics)
    if trial.state is not State.OVER_BUDGET:
        values |= {"images": float(len(trial.observation)), "seconds": trial.seconds}
    if trial.state is State.COMPLETE and trial.kl is not None:
        values["kl"] = trial.kl
    return values


def running_kl(trial: Trial) -> list[tuple[int, float]]:
    """Return images seen and the mean KL over them, after each report."""
    return list(zip(accumulate(trial.chunks), trial.curve, strict=True))
