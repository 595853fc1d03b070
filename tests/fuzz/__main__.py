"""Hunt readers one after the other: `python -m tests.fuzz [SECONDS [READER ...]]`.

It needs atheris. Inputs that a reader fails on are written to out/fuzz/READER, and the exit code is
then 1. After a mend, put the input into tests/fuzz/seeds/READER: every run of the tests reads it.
"""

import subprocess
import sys
from pathlib import Path
from time import monotonic

from tests.fuzz.readers import READERS

OUT = Path("out/fuzz")
SECONDS = 300.0


def hunt(name: str, seconds: float) -> list[Path]:
    """Hunt one reader; begin again where a hang or too much memory ended it."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    end = monotonic() + seconds
    with (folder / "log").open("w") as log:
        while (left := int(end - monotonic())) > 0:
            before = findings(folder)
            words = [sys.executable, "-m", "tests.fuzz.hunt", name, str(left), str(folder)]
            ended = subprocess.run(words, stdout=log, stderr=log, check=False)
            if ended.returncode and findings(folder) == before:
                raise SystemExit(f"{name} was not hunted: see {log.name}")
    return findings(folder)


def findings(folder: Path) -> list[Path]:
    """Return the inputs that were written for a failure, a hang or too much memory."""
    return [path for path in sorted(folder.glob("*-*")) if path.suffix != ".txt"]


def main(seconds: float = SECONDS, *names: str) -> int:
    if unknown := sorted(set(names) - set(READERS)):
        raise SystemExit(f"readers must be among {', '.join(READERS)}, but got {unknown[0]}")
    found = [path for name in names or READERS for path in hunt(name, seconds)]
    print("\n".join(map(str, found)) or "nothing was found")
    return min(1, len(found))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else SECONDS, *sys.argv[2:]))
