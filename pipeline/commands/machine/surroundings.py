"""The machine and the source that a command runs on."""

import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pipeline.preparation.costs.latency import processor_name

PACKAGES = ("igq-vit", "torch", "timm", "ray", "optuna", "mlflow")
_SOURCE = Path(__file__).resolve().parents[3]


def surroundings() -> dict[str, str]:
    """Return what numbers and times may depend on beside the study: host, processor, versions.

    >>> surroundings()["threads"].isdecimal()
    True
    """
    found = {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def _commit() -> str:
    """Return the commit of the source, where it lies in a Git repository of its own."""
    if not (_SOURCE / ".git").exists():
        return ""
    command = ["git", "-C", str(_SOURCE), "rev-parse", "HEAD"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip()
