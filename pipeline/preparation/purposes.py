"""The images of a study: the purposes that they are drawn for, from which sources, how many."""

from collections.abc import Mapping

from pipeline.data import ImageSource, Preprocessing, open_source
from pipeline.errors import DataError
from pipeline.study.request import Request
from search_spaces import SearchSpace

CALIBRATION, SEARCH, VALIDATION, FINAL = "calibration", "search", "validation", "final"
"""The purposes that images are drawn for, in this order."""


def notes_on(sources: Mapping[str, tuple[ImageSource, int, int]]) -> list[str]:
    """Return what is to be said of the sources, each source once."""
    opened = {source.name: source for source, _, _ in sources.values()}
    return [f"{name}: {note}" for name, source in opened.items() for note in source.notes]


def fewer_than_asked(
    sources: Mapping[str, tuple[ImageSource, int, int]], counts: Mapping[str, int]
) -> list[str]:
    """Return what is to be said of purposes that get fewer images than a space asks for."""
    lost = "" if counts[FINAL] else "; there is no final round"
    return [
        f"{source.name} has {counts[purpose]} of the {most} {purpose} images that the space asks "
        f"for{lost if purpose == FINAL else ''}."
        for purpose, (source, _, most) in sources.items()
        if counts[purpose] < most
    ]


def image_sources(
    request: Request, preprocessing: Preprocessing
) -> dict[str, tuple[ImageSource, int, int]]:
    """Return purpose -> source of its images, and the least and most to draw from it.

    Raises:
        DataError: neither the request nor its space names images, or there are none.
    """
    space, images = request.space, request.images or request.space.images
    if images is None:
        raise DataError("`images` must be given, as the search space names none; use --images DIR.")
    names = {
        CALIBRATION: request.calibration or images,
        SEARCH: images,
        VALIDATION: request.validation or images,
        FINAL: images,
    }
    opened = {name: open_source(name, preprocessing) for name in set(names.values())}
    counts = counts_of(space, request.front)
    return {purpose: (opened[names[purpose]], *counts[purpose]) for purpose in names}


def counts_of(space: SearchSpace, front: bool) -> dict[str, tuple[int, int]]:
    """Return the least and most images of each purpose."""
    return {
        CALIBRATION: (space.calibration_images, space.calibration_images),
        SEARCH: (space.search_images, space.search_images),
        VALIDATION: (2, max(2, space.validation_images)),  # a standard error needs two
        FINAL: (0, 0 if front else space.final_images),
    }
