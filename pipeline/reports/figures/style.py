"""The look of all figures: colours that the colour-blind tell apart, on paper and on screens."""

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from pipeline.study.trials import Origin

COLOURS = {
    "best": "#d55e00",
    Origin.SAMPLER.value: "#0072b2",
    Origin.UNIFORM.value: "#56b4e9",
    Origin.ILP.value: "#009e73",
    Origin.FISHER.value: "#cc79a7",
    Origin.RANDOM.value: "#e69f00",
    "repaired": "#8c6bb1",
    "pruned": "#999999",
}
"""Name -> colour, after Okabe and Ito; the same name has the same colour in every figure."""
MAP = "cividis"
"""The colour map of numbers: its lightness alone tells them apart."""
WIDTH = 5.2
"""Inches of a figure: at the width of a telephone it is whole, and its text legible."""
TITLED = "titled-"
"""The ids of groups whose marks have titles."""
NAMESPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
DARK, LIGHT = "#111111", "#fefefe"
"""Ink on cells, which stays as it is where the page is dark."""


def blank(height: float, columns: int = 1, share_y: bool = False) -> tuple[Any, Any]:
    """Return a figure of a height in inches, and its axes: a list where there are several."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, columns, sharey=share_y)
    for one in [axes] if columns == 1 else axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def titled(artist: Any, titles: Sequence[str]) -> None:
    """Give each mark of an artist of matplotlib a title, which SVG shows where it is pointed at."""
    artist.titles = list(titles)


def svg(figure: Any) -> str:
    """Return a figure as SVG to put into HTML: transparent, its black the colour of the text."""
    import matplotlib

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "igq", "font.family": "sans-serif"}
    marked = figure.findobj(lambda artist: hasattr(artist, "titles"))
    for number, artist in enumerate(marked):
        artist.set_gid(f"{TITLED}{number}")
    file = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = _with_titles(file.getvalue(), [artist.titles for artist in marked])
    text = re.sub(r"#000000|(?<=[:\"]) ?black\b", "currentColor", text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for number, colour in enumerate(COLOURS.values()):
        text = text.replace(colour, f"var(--c{number}, {colour})")
    return re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", text, count=2)


def _with_titles(text: str, titles: Sequence[Sequence[str]]) -> str:
    """Put the titles of the marked groups into their marks, in order."""
    for prefix, address in NAMESPACES.items():
        ElementTree.register_namespace(prefix, address)
    root = ElementTree.fromstring(text)
    of, space = {f"{TITLED}{n}": some for n, some in enumerate(titles)}, f"{{{NAMESPACES['']}}}"
    for group in root.iter(f"{space}g"):
        if (some := of.get(group.get("id", ""))) is None:
            continue
        defined = {id(one) for known in group.iter(f"{space}defs") for one in known.iter()}
        marks = [one for one in group.iter() if one.tag in (f"{space}use", f"{space}path")]
        drawn = [one for one in marks if id(one) not in defined]
        for mark, title in zip(drawn, some, strict=False):
            ElementTree.SubElement(mark, f"{space}title").text = title
    return ElementTree.tostring(root, encoding="unicode")
