"""Latency tables as files, and the machine at hand beside the one that a table was measured on."""

import json
import platform
from pathlib import Path

from igq.costs import Machine, Profile, profile_json, profile_of
from igq.errors import ProfileError
from igq.runtime import targets
from pipeline.files import write_json

LARGEST = 2**24
"""Bytes of the largest table that is read (our choice)."""
_CPUINFO = Path("/proc/cpuinfo")


def read_profile(path: Path) -> Profile:
    """Read the latency table that `igq profile` wrote.

    Raises:
        ProfileError: there is no such file, or it breaks a rule.

    >>> read_profile(Path("nowhere.json"))  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    igq.errors.ProfileError: a latency table must be a file, but nowhere.json is none: run
    igq profile.
    """
    try:
        if not path.is_file():
            raise ProfileError(
                f"a latency table must be a file, but {path} is none: run igq profile."
            )
        if path.stat().st_size > LARGEST:
            raise ProfileError(f"a latency table must have at most {LARGEST} bytes, as {path} has.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ProfileError(f"{path} could not be read as a latency table: {error}") from error
    try:
        return profile_of(content)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from None


def write_profile(profile: Profile, path: Path) -> None:
    """Write a latency table, whole or not at all.

    Raises:
        StudyError: the folder cannot be written.
    """
    write_json(path, profile_json(profile))


def this_machine(threads: int) -> Machine:
    """Return the machine at hand, with the best instruction set that the runtime has here.

    >>> this_machine(2).threads
    2
    """
    found = targets()
    return Machine(processor_name(), found[0] if found else "no compiled runtime", threads)


def elsewhere(profile: Profile) -> str | None:
    """Return a warning where a table was measured on another machine; it names both.

    >>> there = Machine("Intel i9", "avx_vnni", 1)
    >>> from igq import Scheme
    >>> profile = Profile("laptop", there, "0.2.0", "vit_tiny", Scheme.BEST, (), 0.5)
    >>> "Intel i9, avx_vnni, 1 thread" in elsewhere(profile)
    True
    """
    here = this_machine(profile.machine.threads)
    if here == profile.machine:
        return None
    return (
        f"the latency table was measured on {profile.target} ({profile.machine}), but this machine "
        f"is {here}: latencies hold there, not here."
    )


def processor_name() -> str:
    """Return the processor's name, as far as the system tells it."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
