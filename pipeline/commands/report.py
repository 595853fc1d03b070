"""The report of studies: one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.result import Result, open_study
from pipeline.errors import StudyError
from pipeline.files import appearing
from pipeline.preparation.sensitivities import kept
from pipeline.reports.figures import Shown
from pipeline.reports.html import Page, html
from pipeline.reports.sentences import export_command, search_command, title
from pipeline.study.seals import read_sealed

NAME = "report.html"


def report(
    studies: Sequence[str | Path], out: str | Path | None = None, weights: Path | None = None
) -> Path:
    """Write the report of studies, side by side, into one HTML file that needs no network.

    Args:
        studies: folders of studies.
        out: the file, by default report.html in the folder of a single study, or here.
        weights: the weights of all studies, where the file was moved.

    Returns:
        The path of the file.

    Raises:
        StudyError: a study has no complete trial within its budget, or `out` cannot be written.
        WeightsError: the weights cannot be read.

    >>> report(["studies/demo"], "reports/demo.html").name
    'demo.html'
    """
    if not studies:
        raise StudyError("`studies` must name at least one folder of a study, but got none.")
    pages = [_page(open_study(folder, weights)) for folder in studies]
    alone = Path(studies[0]) / NAME if len(studies) == 1 else Path(NAME)
    path = Path(out) if out is not None else alone
    with appearing(path) as draft:
        draft.write_text(html(pages), encoding="utf-8")
    return path


def _page(result: Result) -> Page:
    study, folder = result.study, result.folder
    definition, trials = study.definition, result.trials
    shown = Shown(
        trials,
        study.budget,
        result.layers,
        result.best,
        result.comparisons,
        result.final,
        kept(study),
    )
    return Page(
        title=title(definition),
        folder=str(folder.path),
        shown=shown,
        images=result.validation.images if result.validation else 0,
        reference_top1=result.validation.reference_top1 if result.validation else None,
        definition=_definition(result),
        system=read_sealed(folder.system) if folder.system.exists() else {},
        commands=[search_command(definition, len(trials)), export_command(folder.path)],
    )


def _definition(result: Result) -> dict[str, str]:
    definition = result.study.definition
    space = definition.space.model_dump(mode="json", exclude_none=True)
    facts = {name: str(value) for name, value in space.items() if name != "name"}
    images = {
        f"{purpose} images": f"{source}, digest {definition.images[purpose]}"
        for purpose, source in definition.sources.items()
    }
    more = {"key": definition.key, "sampler": definition.sampler.value, "weights": definition.model}
    return {"space": definition.space.name, **facts, **images, **more}
