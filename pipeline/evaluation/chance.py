"""A top-1 that is no better than guessing: a mistake in what was brought, not in the model."""

from math import sqrt

FEWEST = 16
"""Images below which chance says nothing (our choice)."""
DEVIATIONS = 3.0
"""Standard deviations of a guesser's top-1 that count as chance (our choice)."""


def near_chance(
    top1: float | None, images: int, num_classes: int, whose: str = "full precision"
) -> str | None:
    """Return a warning if the top-1 of a model is near chance, with its likely causes.

    `top1` is from 0 to 1; None, and few images, give none.

    >>> near_chance(0.9, 400, 10) is near_chance(None, 400, 10) is None
    True
    >>> print(near_chance(0.11, 400, 10))
    full precision's top-1 is 11.00 % on 400 images, where guessing gives 10.00 %.
    Likely the classes have another order than in training: give --classes alphabetical (1, 10, 2),
    --classes natural (1, 2, 10) or --classes FILE with a name in each line. Else the weights
    belong to another model, or the images were preprocessed otherwise in training.
    """
    if top1 is None or images < FEWEST:
        return None
    chance = 1 / num_classes
    if top1 > chance + DEVIATIONS * sqrt(chance * (1 - chance) / images):
        return None
    return (
        f"{whose}'s top-1 is {100 * top1:.2f} % on {images} images, where guessing gives "
        f"{100 * chance:.2f} %.\n"
        "Likely the classes have another order than in training: give --classes alphabetical "
        "(1, 10, 2),\n--classes natural (1, 2, 10) or --classes FILE with a name in each line. "
        "Else the weights\nbelong to another model, or the images were preprocessed otherwise in "
        "training."
    )
