"""The versions that a driver and its workers must agree in. Light: any node imports it first."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def versions() -> dict[str, str]:
    """Return package -> version, of igq with a hash of its source, as that may be a checkout.

    Builds for one processor or another are the same. Of Python and Ray, Ray sees to it itself.

    >>> sorted(versions())
    ['igq', 'torch']
    """
    here, source = Path(__file__).resolve().parent, hashlib.sha256()
    for package in (here.with_name("igq"), here):
        for path in sorted(package.rglob("*.py")):
            source.update(path.read_bytes())
    return {"igq": f"{_of('igq-vit')} (source {source.hexdigest()[:8]})", "torch": _of("torch")}


def _of(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"
