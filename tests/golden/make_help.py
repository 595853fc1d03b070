"""Record the help of every command again: `python -m tests.golden.make_help`, in the root.

It writes `help/igq.txt` and `help/igq_COMMAND.txt` beside itself, on a terminal of fixed width
without colours. The difference that git shows is a change of the command line: name it in
CHANGELOG.
"""

import os
import re
from pathlib import Path
from unittest import mock

from typer.main import get_command

from pipeline.cli import app
from tests.golden.make_study import run_igq

HELP = Path(__file__).resolve().parent / "help"
TERMINAL = {"COLUMNS": "100", "LINES": "50", "NO_COLOR": "1", "TERM": "dumb"}
STYLES = re.compile(r"\x1b\[[0-9;]*m")


def file_names() -> dict[str, tuple[str, ...]]:
    """Map the name of each file to the words of its command."""
    commands: dict[str, object] = get_command(app).commands  # type: ignore[attr-defined]
    return {"igq.txt": (), **{f"igq_{command}.txt": (command,) for command in commands}}


def help_of(*command: str) -> str:
    """Return the help of a command as it is printed on the fixed terminal."""
    with mock.patch.dict(os.environ, TERMINAL):
        code, printed = run_igq(*command, "--help")
    assert code == 0, printed
    lines = STYLES.sub("", printed).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def main() -> None:
    """Write the help of every command, and remove the files of commands that are gone."""
    HELP.mkdir(exist_ok=True)
    names = file_names()
    for path in HELP.glob("*.txt"):
        if path.name not in names:
            path.unlink()
    for name, command in names.items():
        (HELP / name).write_text(help_of(*command))


if __name__ == "__main__":
    main()
