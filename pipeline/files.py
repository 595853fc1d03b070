"""Files of a study: each appears whole or not at all."""

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import StudyError


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give a draft to write; it becomes `path` if all goes well, and vanishes if not.

    Raises:
        StudyError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            yield draft
            os.replace(draft, path)
    except OSError as error:
        raise _not_writable(path, error) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old content or the new, never a part.

    Raises:
        StudyError: the folder cannot be written.
    """
    text = json.dumps(content, indent=1, allow_nan=False)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        os.replace(draft, path)  # no folder for the draft: a seal is written after each trial
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise _not_writable(path, error) from error


def read_json(path: Path) -> Any:
    """Read JSON that a study wrote.

    Raises:
        StudyError: there is no such file, or it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise StudyError(f"a study must hold {path.name}, but {path.parent} has none.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} could not be read: {error}") from error


def _not_writable(path: Path, error: OSError) -> StudyError:
    return StudyError(f"{path.parent} must be writable, but is not: {error.strerror}.")
