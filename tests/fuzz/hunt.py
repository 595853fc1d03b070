"""One reader, hunted by atheris for a while: `python -m tests.fuzz.hunt READER SECONDS FOLDER`.

Content grows from whole files and kept seeds, by changes that reach new code. Where content is JSON
or YAML, half of the changes put another value at a place. A finding is written into the folder,
once for each place in the code, and the hunt goes on; a hang or too much memory ends it.
"""

import hashlib
import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import torch  # noqa: F401  # before the packages below, whose code is watched
import yaml

with atheris.instrument_imports(include=["igq", "pipeline", "search_spaces", "yaml", "PIL"]):
    from tests.fuzz.readers import READERS, SEEDS, tried, whole_files
    from tests.fuzzing import changed, places

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan")),
    *("", "a", "\0", "\x1b[31m", "../a", "/etc/passwd", "x" * 5000, "1", "w4a4g2", "3 %", "14 ms"),
    *([], {}, [[]], [1, 2], {"a": 1}, {"uniform": 2}, [0] * 300, "é", "\ud800", "nan"),
)
HANG, MEGABYTES = 60, 4096
"""Seconds and memory of one try above which it is a finding; for a machine that does much else."""


def mutated(content: bytes, most: int, seed: int) -> bytes:
    """Return other content, by its structure or by its bytes."""
    drawn = random.Random(seed)
    if drawn.random() < 0.5:
        return bytes(atheris.Mutate(content, most))
    lines = content.split(b"\n")
    for write, first in ((_json, b""), (_json, content[:1]), (_line, b""), (_yaml, b"")):
        try:
            found = write(content.removeprefix(first), lines, drawn)
        except (ValueError, TypeError, RecursionError, IndexError, yaml.YAMLError):
            continue
        return (first + found)[:most]
    return bytes(atheris.Mutate(content, most))


def _json(content: bytes, lines: list[bytes], drawn: random.Random) -> bytes:
    return json.dumps(_edited(json.loads(content), drawn)).encode()


def _line(content: bytes, lines: list[bytes], drawn: random.Random) -> bytes:
    place = drawn.randrange(len(lines) - 1)
    edited = [_json(lines[place], [], drawn)]
    if drawn.random() < 0.2:
        edited = drawn.choice(([], [lines[place]] * 2, [drawn.choice(lines)]))
    return b"\n".join((*lines[:place], *edited, *lines[place + 1 :]))


def _yaml(content: bytes, lines: list[bytes], drawn: random.Random) -> bytes:
    return yaml.safe_dump(_edited(yaml.safe_load(content), drawn), allow_unicode=True).encode()


def _edited(content: Any, drawn: random.Random) -> Any:
    for _ in range(drawn.choice((1, 1, 2, 3))):
        known = places(content)
        place = drawn.choice(known)
        value = drawn.choice((*ODD, ..., content))
        content = changed(content, place, value)
    return content


def hunting(name: str, folder: Path) -> Callable[[bytes], None]:
    """Return the function that atheris calls; it writes each finding once."""

    def one(content: bytes) -> None:
        try:
            tried(name, content)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
            found = folder / f"finding-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
            if not found.exists():
                found.write_bytes(content)
                found.with_suffix(".txt").write_text(traceback.format_exc())
                print(f"{name}: {place}", flush=True)

    return one


def main(name: str, seconds: str, folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    kept = [path.read_bytes() for path in sorted((SEEDS / name).glob("*"))]
    for content in (*whole_files(name), *kept):
        tried(name, content)
        (corpus / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
    limits = [f"-timeout={HANG}", f"-rss_limit_mb={MEGABYTES}", f"-max_total_time={seconds}"]
    options = ["-max_len=60000", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    arguments = ["hunt", *limits, *options, str(corpus)]
    atheris.Setup(arguments, hunting(name, folder), custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    os.nice(19)
    if sys.argv[1] not in READERS:
        raise SystemExit(f"the reader must be one of {', '.join(READERS)}")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
