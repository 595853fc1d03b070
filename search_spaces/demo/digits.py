"""The images of the demo: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

They come with scikit-learn, so that the demo needs no download. The split is part of the demo: its
model was trained on `train` and on nothing else; calibration, search and validation draw on `rest`.

Shapes: images (n, 1, 8, 8), labels (n,). Pixels 0..16 become -1..1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAINING_IMAGES = 1000
_SPLIT_SEED = 0
_BRIGHTEST_PIXEL = 16.0


@dataclass(frozen=True, eq=False)
class Digits:
    """Images, normalised to -1..1, and the digit that each of them shows."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DigitsSplit:
    """The digits of the training, and the rest, which the demo's model has never seen."""

    train: Digits
    rest: Digits


def digits_split() -> DigitsSplit:
    """Split the digits into 1,000 training images and the other 797, always in the same way.

    >>> split = digits_split()
    >>> split.train.images.shape, split.rest.images.shape
    ((1000, 1, 8, 8), (797, 1, 8, 8))
    """
    digits = _read()
    # RandomState and not default_rng: numpy promises never to change the numbers it draws.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(digits.labels))
    train, rest = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]
    return DigitsSplit(train=_pick(digits, train), rest=_pick(digits, rest))


def _read() -> Digits:
    from sklearn.datasets import load_digits  # here: importing this module must stay cheap

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 1, 8, 8) / _BRIGHTEST_PIXEL - 0.5) / 0.5
    return Digits(images=images.astype(np.float32), labels=labels.astype(np.int64))


def _pick(digits: Digits, indices: NDArray[np.intp]) -> Digits:
    return Digits(images=digits.images[indices], labels=digits.labels[indices])
