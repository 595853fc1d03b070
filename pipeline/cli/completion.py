"""Completion of names in a shell. Nothing here needs torch: a shell waits for it."""

import re
from importlib.util import find_spec
from pathlib import Path

from search_spaces import names

_MODEL = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)


def complete_space(incomplete: str) -> list[str]:
    """Return the bundled spaces that begin so.

    >>> complete_space("dem")
    ['demo']
    """
    return [name for name in names() if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Return timm's models that begin so, as its source registers them; timm is not imported.

    >>> complete_model("deit_tiny_p")
    ['deit_tiny_patch16_224']
    """
    found = find_spec("timm")
    folders = [] if found is None else found.submodule_search_locations or []
    files = (path for folder in folders for path in Path(folder, "models").glob("*.py"))
    known = (name for path in files for name in _MODEL.findall(path.read_text("utf-8")))
    return sorted(name for name in known if name.startswith(incomplete))


def complete_space_or_model(incomplete: str) -> list[str]:
    """Return the bundled spaces, then timm's models, that begin so.

    >>> complete_space_or_model("deit_tiny_w4a4")
    ['deit_tiny_w4a4', 'deit_tiny_w4a4_paper']
    """
    return [*complete_space(incomplete), *complete_model(incomplete)]
