"""Folders that appear whole or not at all, and the seal of a format without a manifest."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igq.errors import ArtifactError
from igq.formats.integrity import (
    DamagedError,
    check_files,
    check_sealed,
    file_entry,
    read_object,
    sealed,
)

MANIFEST = "manifest.json"
SEAL = "igq-sealed"
"""The `format` of the manifest that `seal` writes."""
SCHEMA = 1


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write; it becomes `path` if all goes well, and vanishes if not.

    Raises:
        ArtifactError: `path` exists already, or a file or folder could not be written.
    """
    if path.exists():
        raise ArtifactError(f"`path` must not exist yet, but {path} does.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ArtifactError(f"{path.parent} must be writable, but is not: {error}") from error
    try:
        yield draft
        draft.chmod(0o755)  # a temporary folder is its maker's alone
        os.replace(draft, path)
    except OSError as error:
        raise ArtifactError(f"{path} could not be written: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def seal(folder: Path, kind: str) -> None:
    """Write a manifest with the digest of each file of a folder, and of itself."""
    files = {file.name: file_entry(file) for file in sorted(folder.iterdir())}
    content = {"format": SEAL, "schema": SCHEMA, "kind": kind, "files": files}
    (folder / MANIFEST).write_text(json.dumps(sealed(content), indent=1) + "\n")


def is_sealed(folder: Path) -> bool:
    """Return whether a folder's manifest says that `seal` wrote it."""
    try:
        return bool(read_object(folder, MANIFEST).get("format") == SEAL)
    except DamagedError:
        return False


def check_seal(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder that is as it was sealed.

    Raises:
        ArtifactError: it is not; the message names the file and the reason.
    """
    try:
        manifest = read_object(folder, MANIFEST)
        check_sealed(MANIFEST, manifest)
        if (manifest.get("format"), manifest.get("schema")) != (SEAL, SCHEMA):
            raise DamagedError(MANIFEST, "it must be of this version of igq-vit, but is not")
        known = sorted(file.name for file in folder.iterdir() if file.name != MANIFEST)
        check_files(folder, MANIFEST, manifest["files"], known)
    except (DamagedError, OSError, KeyError) as error:
        raise ArtifactError(f"{folder} could not be read as an export: {error}") from error
    return manifest
