"""Mutations of a small study: `python -m tests.contracts.study_mutations`, which prints a tally.

Bits flipped, files cut, gone, replaced or taken from another study or another file of the same
one, JSON and lines of the journal edited. After each the study is opened, its best is made ready
for an export, and now and then the search is resumed: refused with a reason, or identical.
"""

import json
import os
import random
import resource
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

import pipeline
import search_spaces
from igq.errors import IgqError
from pipeline.commands.artifacts.export import quantized_of
from pipeline.preparation.notes import notes_of
from pipeline.preparation.sensitivities import kept
from pipeline.study.definition import fingerprint
from pipeline.study.progress import SilentDisplay
from pipeline.tracking.uris import tracked_at
from tests.contracts.mutations import edit
from tests.pipeline.conftest import SPACE, make_model

Mutate = Callable[[random.Random, Path, Path], str]
"""Changes the first folder, perhaps with files of the second, and says how."""
FEW = {"trials": 6, "rivals": False, "figures": False}
JSON_FILES = ("study.json", "journal.json", "final.json", "result.json", "validation.json")
RESUMED = 20
"""One in so many studies is resumed too."""


def make(folder: Path, space: Path, seed: int = 0, resume: bool = False) -> None:
    """Run, or resume, a search of a study of one block on one thread."""
    loaded = search_spaces.load(space)
    request = pipeline.Request(loaded, folder, seed=seed, resume=resume, **FEW)
    tracker, display = pipeline.InMemoryTracker(), SilentDisplay()
    pipeline.run(request, pipeline.InProcess(), tracker, display)


def write_space(folder: Path) -> Path:
    """Write the space and the weights of the study."""
    save_file(make_model().state_dict(), folder / "weights.safetensors")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(SPACE | {"weight_method": "corrected"}))
    return path


def files(folder: Path) -> list[Path]:
    """Return the files that a study is read from."""
    every = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return sorted(every)


def flip(draw: random.Random, folder: Path, other: Path) -> str:
    path = draw.choice(files(folder))
    content, at = bytearray(path.read_bytes()), draw.randrange(8 * path.stat().st_size)
    content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)
    return f"bit {at} of {path.name}"


def cut(draw: random.Random, folder: Path, other: Path) -> str:
    path = draw.choice(files(folder))
    content = path.read_bytes()
    at = draw.randrange(len(content))
    if draw.random() < 0.5 and path.name == "journal.log":
        at = content.rfind(b"\n", 0, at + 1) + 1
    longer = draw.random() < 0.2
    path.write_bytes(content + content[:at] + b" " if longer else content[:at])
    return f"{path.name} {'with more' if longer else 'cut'} at {at}"


def swap(draw: random.Random, folder: Path, other: Path) -> str:
    target = draw.choice(files(folder))
    kind = target.name.partition("_")[0]
    source = draw.choice([path for path in files(other) if path.name.partition("_")[0] == kind])
    if draw.random() < 0.2:
        source = draw.choice(files(folder))
    target.write_bytes(source.read_bytes())
    return f"{source.parent.name}/{source.name} in place of {target.name}"


def replace(draw: random.Random, folder: Path, other: Path) -> str:
    path, how = draw.choice(files(folder)), draw.choice(("gone", "folder", "link", "zeros"))
    size = path.stat().st_size
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        os.symlink(draw.choice(files(other)), path)
    elif how == "zeros":
        path.write_bytes(bytes(size))
    return f"{path.name}: {how}"


def edit_json(draw: random.Random, folder: Path, other: Path) -> str:
    names = [*JSON_FILES, *[path.name for path in (folder / "cache").glob("*.json")]]
    path = folder / draw.choice(names)
    path = path if path.exists() else folder / "cache" / path.name
    content = json.loads(path.read_text())
    said = edit(draw, content)
    text = json.dumps(content)
    if draw.random() < 0.05:
        text = text[:-1] + f', "deep": {"[" * 100_000}{"]" * 100_000}}}'
    path.write_text(text)
    return f"{path.name}: {said}"


def edit_line(draw: random.Random, folder: Path, other: Path) -> str:
    path = folder / "journal.log"
    lines = path.read_text().splitlines()
    at = draw.randrange(len(lines))
    operation = json.loads(lines[at])
    said = edit(draw, operation)
    lines[at] = json.dumps(operation)
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"line {at} of the journal: {said}"


def reorder(draw: random.Random, folder: Path, other: Path) -> str:
    path = folder / "journal.log"
    lines = path.read_text().splitlines(keepends=True)
    theirs = (other / "journal.log").read_text().splitlines(keepends=True)
    one, at, how = draw.choice(theirs), draw.randrange(len(lines)), draw.choice("didae")
    if how == "d":
        del lines[at]
    elif how == "i":
        lines.insert(at, one)
    elif how == "a":
        lines.append(one)
    else:
        lines += theirs[at:]
    path.write_text("".join(lines))
    return f"journal: {how} at {at}"


MUTATIONS: dict[Mutate, int] = {
    flip: 120,
    cut: 90,
    swap: 80,
    replace: 60,
    edit_json: 90,
    edit_line: 40,
    reorder: 30,
}


def read(folder: Path) -> dict[str, Any]:
    """Return all that a study says: its result, what is exported, and its tables."""
    result = pipeline.open(folder)
    model = quantized_of(result.study, result.best.proposal.allocation)
    return {
        "result": repr(result),
        "trials": result.trials,
        "final": result.final,
        "comparisons": result.comparisons,
        "notes": json.dumps(notes_of(result.study, result.best, result.final), sort_keys=True),
        "model": fingerprint(model),
        "tables": kept(result.study),
        "tracking": tracked_at(folder),
    }


def outcome(folder: Path, good: dict[str, Any], space: Path | None) -> str:
    """Open a study, and resume it if a space is given: refused, identical, different, or odd."""
    try:
        if space is not None:
            make(folder, space, resume=True)
        found = read(folder)
    except IgqError as error:
        named = str(folder) in str(error)
        return "refused" if named else f"refused without a file: {error}"
    except Exception as error:
        return f"traceback: {error!r}"
    tables = found["tables"]  # one that is gone is left out of reports
    missing = {name: table for name, table in good["tables"].items() if name not in tables}
    found["tables"] = {name: (tables | missing)[name] for name in good["tables"]}
    odd = [part for part, value in found.items() if value != good[part]]
    return f"different: {odd}" if odd else "identical"


def tally(mutations: dict[Mutate, int], seed: int = 0) -> dict[str, Any]:
    """Return how many mutations ended in which way, and an example of each odd one."""
    torch.set_num_threads(1)
    counts: dict[str, int] = {}
    odd: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        good, other, mutated = (home / name for name in ("good", "other", "mutated"))
        space = write_space(home)
        make(good, space)
        make(other, space, seed=1)
        same = home / "same"
        make(same, space)
        shutil.copytree(good, mutated)
        expected = read(mutated)
        shutil.rmtree(mutated)
        for mutate, count in mutations.items():
            for number in range(count):
                shutil.copytree(good, mutated)
                draw = random.Random(f"{mutate.__name__} {number} {seed}")
                said = mutate(draw, mutated, other if number % 2 else same)
                resumed = space if number % RESUMED == 0 else None
                ended = outcome(mutated, expected, resumed)
                kind = ended.partition(":")[0]
                counts[kind] = counts.get(kind, 0) + 1
                if kind not in ("refused", "identical"):
                    odd.append(f"{mutate.__name__} {number}: {said} -> {ended}")
                shutil.rmtree(mutated)
    return {"counts": counts, "odd": odd, "peak_mib": peak_mib()}


def peak_mib() -> int:
    """Return the most memory of this process alone: `ru_maxrss` begins with the parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(found.split()[1]) // 1024


if __name__ == "__main__":
    print(json.dumps(tally(MUTATIONS), indent=1))
