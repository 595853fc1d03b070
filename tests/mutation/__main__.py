"""Try mutants of the numerical core: `python -m tests.mutation [TESTS ...]`.

Every mutant has a process of its own, forked when everything is imported and all tests are
collected; it runs the tests that call the changed function, the quickest first, up to one that
fails. A mutant outside of functions is forked before igq is imported, and has its room's tests.

Results are added to out/mutation.jsonl; mutants noticed there are not tried again. With
JAXTYPING_DISABLE=1 tests take a third of the time, but then no shape is checked.
"""

import gc
import json
import os
import random
import resource
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import SourceFileLoader
from itertools import zip_longest
from pathlib import Path
from time import process_time
from types import CodeType, FrameType, FunctionType

import hypothesis  # noqa: F401
import pytest
import scipy.optimize  # noqa: F401
import timm  # noqa: F401

from tests.mutation.mutants import Mutant, mutants

ROOMS = ("arithmetic", "grouping", "costs", "allocation")
FILES = [path for room in ROOMS for path in sorted(Path("igq", room).glob("*.py"))]
OUT = Path("out/mutation.jsonl")
CALLS = Path("out/mutation_calls.json")
BROKEN_BY = Path("out/mutation_broken.txt")
SECONDS = 30
"""Processor time that a mutant has beside three times that of its tests; no more is noticed."""
SURVIVED, NOTICED, BROKEN = range(3)


def main(tests: Sequence[str]) -> int:
    tests = tests or [f"{folder}/{room}" for folder in ("tests/igq", "igq") for room in ROOMS]
    OUT.parent.mkdir(exist_ok=True)
    known = [json.loads(line) for line in OUT.open()] if OUT.exists() else []
    noticed = {result["mutant"] for result in known if result["noticed"]}
    left = [m for path in FILES for m in mutants(path) if str(m) not in noticed]
    random.Random(0).shuffle(left)
    for mutant in left:
        if not mutant.function:
            room = mutant.path.parts[1]
            words = _words(["-x", f"tests/igq/{room}", f"igq/{room}"])
            _try(mutant, partial(_run_afresh, mutant, words), 3 * SECONDS)
    return int(pytest.main(_words(tests), plugins=[Trials([m for m in left if m.function])]))


def _words(tests: Sequence[str]) -> list[str]:
    usual = "-q -p no:cacheprovider --capture=sys --basetemp=/tmp/mutation"
    return [*usual.split(), "-m", "fast or slow", *tests]


def _run_afresh(mutant: Mutant, words: list[str]) -> int:
    """Run tests with the changed file in place of its own."""
    usual = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        if Path(loader.path) != mutant.path.resolve():
            return usual(loader, name)
        return loader.source_to_code(mutant.source(), loader.path)

    SourceFileLoader.get_code = get_code
    ends = {pytest.ExitCode.OK: SURVIVED, pytest.ExitCode.NO_TESTS_COLLECTED: BROKEN}
    return ends.get(pytest.main(words), NOTICED)


class Trials:
    """A plugin of pytest that runs tests on each mutant of a function, instead of once."""

    def __init__(self, mutants: Sequence[Mutant]) -> None:
        self.mutants = mutants
        self.calls: defaultdict[str, set[str]] = defaultdict(set)
        """Test, or `fixture NAME` -> the functions that it calls, as `path function`."""
        self.failed: set[str] = set()
        self.ends = False
        """Whether a test that fails ends the process."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        modules = {path: import_module(".".join(path.with_suffix("").parts)) for path in FILES}
        _forked(partial(self._run_all, session.items), 10_000)
        seconds, calls = json.loads(CALLS.read_text())
        print(f"{len(seconds)} of {len(session.items)} tests pass", flush=True)
        gc.unfreeze()
        functions = defaultdict(list)
        for made in gc.get_objects():
            if isinstance(made, FunctionType):
                functions[_key(made.__code__)].append(made)
        gc.freeze()  # a process that does not look at its objects shares their memory
        self.ends = True
        for mutant in self.mutants:
            key = f"{mutant.path.resolve()} {mutant.function}"
            items = [i for i in session.items if i.nodeid in seconds and key in _called(i, calls)]
            items.sort(key=lambda item: seconds[item.nodeid])
            limit = SECONDS + 3 * sum(seconds[item.nodeid] for item in items)
            spec = modules[mutant.path].__spec__
            _try(mutant, partial(_run_on, mutant, spec.loader, functions[key], items), int(limit))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.ends:
            os._exit(NOTICED)
        if not report.passed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None]:
        with _Calls(self.calls[f"fixture {fixturedef.argname}"], not self.ends):
            return (yield)

    def _run_all(self, items: Sequence[pytest.Item]) -> int:
        """Write the time and the functions called of each test that passes."""
        seconds = {}
        for item, following in zip(items, [*items[1:], None], strict=True):
            before = process_time()
            with _Calls(self.calls[item.nodeid]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = process_time() - before
        passed = {name: time for name, time in seconds.items() if name not in self.failed}
        CALLS.write_text(json.dumps([passed, {n: sorted(c) for n, c in self.calls.items()}]))
        return SURVIVED


class _Calls:
    """Add the functions of the core that are called to a set."""

    def __init__(self, seen: set[str], on: bool = True) -> None:
        self.seen, self.on = seen, on
        self.files = {str(path.resolve()) for path in FILES}

    def __enter__(self) -> None:
        self.before = sys.getprofile()
        if self.on:
            sys.setprofile(self._look)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self.before)

    def _look(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename in self.files:
            self.seen.add(_key(frame.f_code))


def _key(code: CodeType) -> str:
    return f"{code.co_filename} {code.co_qualname.partition('.<locals>')[0]}"


def _called(item: pytest.Item, calls: dict[str, list[str]]) -> set[str]:
    sources = [item.nodeid, *(f"fixture {name}" for name in item.fixturenames)]
    return {function for source in sources for function in calls.get(source, ())}


def _run_on(
    mutant: Mutant,
    loader: SourceFileLoader,
    functions: Sequence[FunctionType],
    items: Sequence[pytest.Item],
) -> int:
    """Run tests with the changed function in place of its own."""
    code = _found(loader.source_to_code(mutant.source(), loader.path), mutant.function)
    assert code is not None
    assert functions
    for function in functions:
        function.__code__ = code
    for item, following in zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return SURVIVED


def _found(code: CodeType, function: str) -> CodeType | None:
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    named = [c for c in inner if c.co_qualname == function]
    return named[0] if named else next(filter(None, (_found(c, function) for c in inner)), None)


def _try(mutant: Mutant, run: Callable[[], int], seconds: int) -> None:
    code = _forked(run, seconds)
    if code == BROKEN:
        print("BROKEN", mutant, BROKEN_BY.read_text(), flush=True)
        return
    noticed = code != SURVIVED
    with OUT.open("a") as out:
        out.write(json.dumps({"mutant": str(mutant), "noticed": noticed}) + "\n")
    print("noticed " if noticed else "SURVIVED", mutant, flush=True)


def _forked(run: Callable[[], int], seconds: int) -> int:
    """Run in a process of its own, silently; return its exit code, negative if it was killed."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(silent, stream)
    code = BROKEN
    try:
        code = run()
    except BaseException:
        BROKEN_BY.write_text(traceback.format_exc())
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
