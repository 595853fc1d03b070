"""The report of studies: one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.studies.result import Result, open_study
from pipeline.errors import StudyError
from pipeline.files import appearing
from pipeline.preparation.sensitivities import kept
from pipeline.reports.figures import Shown
from pipeline.reports.html import Page, html, page_of
from pipeline.study.folder import Folder
from pipeline.study.seals import read_sealed


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
    name = Folder(Path(studies[0])).report
    alone = name if len(studies) == 1 else Path(name.name)
    path = Path(out) if out is not None else alone
    with appearing(path) as draft:
        draft.write_text(html(pages), encoding="utf-8")
    return path


def _page(result: Result) -> Page:
    study, folder = result.study, result.folder
    shown = Shown(
        result.trials,
        study.budget,
        result.layers,
        result.best,
        result.comparisons,
        result.final,
        kept(study),
    )
    system = read_sealed(folder.system) if folder.system.exists() else {}
    return page_of(study.definition, folder.path, shown, result.validation, system)
