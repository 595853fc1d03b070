"""Check what searches need of a machine: versions, processors, a compiler, writable folders."""

import os
import platform
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from igq.runtime import targets

PACKAGES = ("torch", "timm", "numpy", "pillow", "ray", "optuna", "mlflow", "onnx", "onnxruntime")
_OPTIONAL = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    >>> Finding("compiler", True, "/usr/bin/c++").good
    True
    """

    name: str
    good: bool
    said: str
    """The observation, and the remedy where it is not good."""


def diagnose(out: Path = Path("studies"), cluster: str | None = None) -> list[Finding]:
    """Look at what searches need; nothing is started or left behind.

    `cluster` is the address HOST:PORT of a Ray cluster to reach.

    >>> next(finding.good for finding in diagnose() if finding.name == "python")
    True
    """
    findings = [*_versions(), _processor(), _gpu(), _compiler(), _runtime()]
    findings.append(_writable("studies", out))
    findings += [_writable("temporary files", Path(tempfile.gettempdir())), _sqlite()]
    if cluster is not None:
        findings.append(_reachable(cluster))
    return findings


def _versions() -> Iterator[Finding]:
    yield Finding("python", True, platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            optional = name in _OPTIONAL
            said = "not there; only some formats need it" if optional else "not there: install it"
            yield Finding(name, optional, said)


def _processor() -> Finding:
    features = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    used = f"{threads} thread{'s' * (threads != 1)}"
    return Finding("processor", True, f"{os.cpu_count()} cores, {used}, {features}")


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding("GPU", True, "none; searches run on the processor")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", True, ", ".join(names))


def _compiler() -> Finding:
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if found is None:
        return Finding("compiler", False, "none: --engine compiled needs a C++ compiler")
    return Finding("compiler", True, found)


def _runtime() -> Finding:
    found = targets()
    if not found:
        remedy = "not compiled, so that exported models are slow: pip install . with a C++ compiler"
        return Finding("runtime", False, remedy)
    return Finding("runtime", True, f"compiled, with {', '.join(found)}")


def _writable(name: str, folder: Path) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(name, False, f"{folder} cannot be written: choose another --out")
    free = shutil.disk_usage(there).free / 1e9
    return Finding(name, True, f"{folder} can be written, {free:.0f} GB free")


def _sqlite() -> Finding:
    def opens() -> str:
        with tempfile.TemporaryDirectory() as folder:
            connection = sqlite3.connect(Path(folder) / "mlflow.db")
            connection.execute("CREATE TABLE tried (x)")
            connection.close()
        return f"SQLite {sqlite3.sqlite_version} can be written"

    return _tried("MLflow's store", opens)


def _reachable(address: str) -> Finding:
    def connects() -> str:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        return f"{address} answers"

    return _tried("cluster", connects)


def _tried(name: str, action: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, action())
    except (OSError, ValueError, sqlite3.Error) as error:
        return Finding(name, False, str(error) or type(error).__name__)
