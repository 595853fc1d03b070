"""An extension of Griffe: examples in docstrings become blocks of code."""

import re
from typing import Any

import griffe

DIRECTIVE = re.compile(r" *# doctest: \+\w+")
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", flags=re.MULTILINE)
"""An example: from its first prompt to the next empty line."""


class Examples(griffe.Extension):
    """Fence each example, so that Markdown leaves it as it is."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return a docstring with its examples as blocks of code."""
    text = DIRECTIVE.sub("", text)
    return EXAMPLE.sub(lambda found: f"```pycon\n{found.group()}\n```", text)
