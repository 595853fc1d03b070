"""The one definition of a study's best trial, and of its front of cost and KL."""

from collections.abc import Iterable, Sequence

from igq.costs import Number
from pipeline.study.final import Final
from pipeline.study.trials import Origin, State, Trial


def best(trials: Iterable[Trial], budget: Number) -> Trial | None:
    """Return the trial of least KL among those within the budget that saw every image.

    Ties go to the cheaper one, then to the earlier one. None where no trial qualifies.

    >>> import pipeline
    >>> trials = pipeline.open("studies/demo").trials
    >>> best(trials, budget=1) is None
    True
    >>> best(trials, budget=1e9).state.value
    'complete'
    """
    return next(iter(completed(trials, budget)), None)


def completed(trials: Iterable[Trial], budget: Number) -> list[Trial]:
    """Return the trials within the budget that saw every image, least KL first.

    Of equals the cheaper one comes first.
    """
    qualified = (t for t in trials if t.state is State.COMPLETE and t.proposal.cost <= budget)
    return sorted(qualified, key=lambda t: (t.kl, t.proposal.cost, t.number))


def best_of(trials: Iterable[Trial], origin: Origin, budget: Number) -> Trial | None:
    """Return the best trial that `origin` proposed."""
    return best((t for t in trials if t.proposal.origin is origin), budget)


def chosen(trials: Iterable[Trial], budget: Number, final: Final | None) -> Trial | None:
    """Return the winner of the final round; without one, the best trial on the search images."""
    if final is None:
        return best(trials, budget)
    return next((trial for trial in trials if trial.number == final.winner), None)


def front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Return the trials that saw every image and that no cheaper one equals, cheapest first."""
    complete = [trial for trial in trials if trial.state is State.COMPLETE]
    found: list[Trial] = []
    for trial in sorted(complete, key=lambda t: (t.proposal.cost, t.kl, t.number)):
        if not found or (trial.kl or 0.0) < (found[-1].kl or 0.0):
            found.append(trial)
    return tuple(found)


def knee(points: Sequence[Trial]) -> Trial | None:
    """Return the point of a front from which more cost begins to buy less.

    It is the farthest below the line between the ends, both axes from 0 to 1; None where no point
    lies below it.
    """
    if len(points) < 3:
        return None
    first, last = points[0], points[-1]
    width = last.proposal.cost - first.proposal.cost
    height = (first.kl or 0.0) - (last.kl or 0.0)

    def below(trial: Trial) -> float:
        along = (trial.proposal.cost - first.proposal.cost) / width
        return 1 - along - ((trial.kl or 0.0) - (last.kl or 0.0)) / height

    found = max(points, key=below)
    return found if below(found) > 0 else None
