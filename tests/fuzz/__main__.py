"""Hunt readers one after the other: `python -m tests.fuzz [SECONDS [READER ...]]`.

It needs atheris. What it finds lies in out/fuzz/READER, and ends it with 1; a file that was mended
for goes to tests/fuzz/seeds/READER, where every run of the tests reads it.
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
            words = [sys.executable, "-m", "tests.fuzz.hunt", name, str(left), str(folder)]
            subprocess.run(words, stdout=log, stderr=log, check=False)
    return [path for path in sorted(folder.glob("*-*")) if path.suffix != ".txt"]


def main(seconds: float = SECONDS, *names: str) -> int:
    found = [path for name in names or READERS for path in hunt(name, seconds)]
    print("\n".join(map(str, found)) or "nothing was found")
    return min(1, len(found))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else SECONDS, *sys.argv[2:]))
