"""Files of a study: each appears whole or not at all."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from igq.formats import integrity
from igq.formats.integrity import DamagedError
from pipeline.errors import StudyError

MOST_BYTES = 1 << 28
"""The largest JSON file of a study that is read (our choice)."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give a draft to write, a file or a folder; it becomes `path` or vanishes.

    Raises:
        StudyError: the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise StudyError(
            f"{path.parent} must be writable, but is not: {error.strerror}."
        ) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old content or the new, never a part.

    Raises:
        StudyError: the folder cannot be written.
    """
    text = json.dumps(content, indent=1, allow_nan=False)
    with appearing(path) as draft:
        draft.write_text(text)


def read_json(path: Path) -> Any:
    """Read JSON that a study wrote.

    Raises:
        StudyError: there is no such file, or it is damaged.
    """
    if not os.path.lexists(path):
        raise StudyError(f"a study must hold {path.name}, but {path.parent} has none.")
    try:
        return integrity.read_json(path.parent, path.name, MOST_BYTES)
    except DamagedError as error:
        raise StudyError(f"{path} could not be read: {error}") from error
