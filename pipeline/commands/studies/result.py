"""The result of a study, as it is opened from its folder."""

import io
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from igq import Layer
from pipeline.analysis.comparison import Comparison, compared
from pipeline.commands.artifacts.export import Exported, Wanted, export_study
from pipeline.errors import StudyError
from pipeline.evaluation.validation import Validation, load_validation
from pipeline.preparation.study import Study
from pipeline.reports.tables import comparison_table
from pipeline.study.best import chosen, front
from pipeline.study.final import Final
from pipeline.study.folder import Folder
from pipeline.study.trials import Trial
from search_spaces import Budget


@dataclass(frozen=True, eq=False)
class Result:
    """A study's trials, the best of them, and its comparison with its rivals.

    >>> import pipeline
    >>> result = pipeline.open("studies/demo")
    >>> result.best in result.trials
    True
    >>> [row.name for row in result.comparisons][:2]
    ['best', 'uniform']
    >>> result.export("artifacts/demo").path.name
    'demo'
    """

    study: Study
    trials: tuple[Trial, ...]
    best: Trial
    """The winner of the final round, or else the trial of least KL on the search images."""
    final: Final | None
    validation: Validation | None
    """None where the search has not come to its end."""

    @classmethod
    def of(cls, study: Study) -> "Result":
        """Read the result of a study.

        Raises:
            StudyError: no trial completed within the budget, or a file is damaged.
        """
        trials, final = study.trials(), study.final()
        found = chosen(trials, study.budget, final)
        if found is None:
            raise StudyError(
                "a result must have a trial that completed within the budget, but "
                f"{study.folder.path} has none of {len(trials)} trials: resume the search."
            )
        folder = study.folder
        ended = folder.validation.exists() or folder.result.exists()
        validation = load_validation(folder.validation) if ended else None
        return cls(study, trials, found, final, validation)

    @property
    def folder(self) -> Folder:
        """The folder of the study."""
        return self.study.folder

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the model."""
        return self.study.layers

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no cheaper one equals, cheapest first."""
        return front(self.trials)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The best beside its rivals on unseen images, with intervals over images."""
        return () if self.validation is None else compared(self.validation)

    def export(
        self,
        out: str | Path,
        format: str = "native",
        budget: Budget | None = None,
        trial: int | None = None,
    ) -> Exported:
        """Write the best allocation, or that of a trial, as a quantized model to a new folder.

        Raises:
            ArtifactError: `out` exists already or cannot be written.
            InvalidArgumentError: there is no such format, or both a trial and a budget.
            StudyError: there is no such trial.
        """
        return export_study(self.study, Path(out), Wanted(tuple(format.split(",")), budget, trial))

    def __repr__(self) -> str:
        kl = "" if self.validation is None else f", KL {self.comparisons[0].kl.mean:.4f} on unseen"
        return (
            f"Result({str(self.folder.path)!r}, {len(self.trials)} trials, best: trial "
            f"{self.best.number} at {self.best.proposal.price}{kl})"
        )

    def _repr_html_(self) -> str:
        """Return the comparison as a table for a notebook."""
        console = Console(file=io.StringIO(), record=True, width=132)
        console.print(repr(self), highlight=False)
        if self.validation is not None:
            title = f"On {self.validation.images} images that the search did not see"
            top1 = self.validation.reference_top1
            console.print(comparison_table(self.comparisons, title, "images", top1))
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def open_study(folder: str | Path, weights: str | Path | None = None) -> Result:
    """Open the study in a folder: its trials, the best of them, and the comparison at its end.

    `weights` is for weights that were moved since; they must be the same ones.

    Raises:
        StudyError: there is no study, no trial completed within the budget, or the weights are
            others.

    >>> import pipeline
    >>> len(pipeline.open("studies/demo").trials)
    4
    >>> pipeline.open("nowhere")
    Traceback (most recent call last):
    pipeline.errors.StudyError: a study must hold study.json, but nowhere has none.
    """
    return Result.of(Study.open(Path(folder), Path(weights) if weights else None))
