"""The numbers that figures show, as CSV."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.reports.figures.pictures import Shown
from pipeline.study.shape import means_by_kind, means_by_third
from pipeline.study.trials import Trial

Row = Mapping[str, object]


def write_data(folder: Path, shown: Shown) -> list[Path]:
    """Write `trials.csv`, and `sensitivities.csv` where there are any; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    trials = [_trial(trial) for trial in shown.trials]
    sensitivities: list[Row] = [
        {"table": table, "layer": layer, "setting": str(setting), "kl": kl}
        for table, layers in shown.sensitivities.items()
        for layer, row in layers.items()
        for setting, kl in row.items()
    ]
    tables: dict[str, list[Row]] = {"trials.csv": trials, "sensitivities.csv": sensitivities}
    return [_write(folder / name, rows) for name, rows in tables.items() if rows]


def _trial(trial: Trial) -> Row:
    allocation = trial.proposal.allocation
    ended = datetime.fromtimestamp(trial.ended, UTC).isoformat() if trial.ended else ""
    return {
        "trial": trial.number,
        "origin": str(trial.proposal.origin),
        "state": str(trial.state),
        "kl": "" if trial.kl is None else trial.kl,
        "images": len(trial.observation),
        **trial.proposal.metrics,
        "seconds": trial.seconds,
        "ended": ended,
        "node": trial.node,
        **means_by_third(allocation),
        **means_by_kind(allocation),
    }


def _write(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(_names(rows))))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _names(rows: Iterable[Row]) -> Iterable[str]:
    return (name for row in rows for name in row)
