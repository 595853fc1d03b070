"""Scores of several models on the same images, however many these are.

Images pass once, block by block, and only the scores are kept: each block is predicted by the
reference and by every model before the next one is read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from igq import InvalidArgumentError, Score
from igq.evaluation import BATCH_SIZE, divergences, log_probabilities
from igq.progress import Progress, silent
from pipeline.data import Block

Ready = Callable[[], nn.Module]
"""Returns a model, made ready for the next images: several may be one model that is changed."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The score of each model, and of the reference, which has no KL; None without one."""

    models: tuple[Score, ...]
    reference: Score | None = None


@dataclass(frozen=True, eq=False)
class Contest:
    """The models to score, the reference that they have a KL to, and how to go through images.

    >>> import igq
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(6, 1, 8, 8)
    >>> halves = [Block(images[:4], None), Block(images[4:], None)]
    >>> Contest([lambda: vit], vit, batch_size=2).score(halves, 6).models
    (Score(kl=0.0000, top1=None),)
    """

    models: Sequence[Ready]
    reference: nn.Module | None = None
    batch_size: int = BATCH_SIZE

    def score(self, blocks: Iterable[Block], images: int, progress: Progress = silent) -> Scores:
        """Score the models on blocks that hold `images` images together.

        Raises:
            InvalidArgumentError: there are no images.
        """
        if images == 0:
            raise InvalidArgumentError("evaluation needs at least 1 image, but got 0.")
        seen, passes = 0, len(self.models) + (self.reference is not None)
        kept = [_Kept(images) for _ in range(passes)]
        for block in blocks:

            def told(number: int, share: float, before: int = seen, size: int = len(block)) -> None:
                progress((before + size * (number + share) / passes) / images)

            for one, score in zip(kept, self._block(block, images, told), strict=True):
                one.write(seen, score)
            seen += len(block)
        scores = tuple(one.score for one in kept)
        return Scores(scores) if self.reference is None else Scores(scores[1:], scores[0])

    def _block(
        self, block: Block, images: int, told: Callable[[int, float], None]
    ) -> Iterable[Score]:
        """Yield the reference's score on a block, if there is one, then the models'."""
        first = () if self.reference is None else (self.reference,)
        expected = None
        for number, model in enumerate((*first, *self.models)):
            size = BATCH_SIZE if number < len(first) else self.batch_size
            predicted = log_probabilities(
                model if isinstance(model, nn.Module) else model(),
                block.values,
                size,
                partial(told, number),
                padded_to=min(size, images),
            )
            yield _score(predicted, expected, block)
            expected = predicted if number < len(first) else expected


def _score(predicted: Tensor, expected: Tensor | None, block: Block) -> Score:
    return Score(
        kls=None if expected is None else divergences(expected, predicted),
        correct=None if block.labels is None else predicted.argmax(-1) == block.labels,
    )


class _Kept:
    """The score of a model so far.

    Its memory is taken at once: a small tensor kept for each batch, between the large ones that
    come and go, would keep the system from getting those back.
    """

    def __init__(self, images: int) -> None:
        self._kls, self._correct = torch.empty(images), torch.empty(images, dtype=torch.bool)
        self.score = Score(None, None)

    def write(self, start: int, score: Score) -> None:
        """Take the score of the images from `start` on."""
        kls = correct = None
        if score.kls is not None:
            kls = self._kls
            kls[start : start + len(score.kls)] = score.kls
        if score.correct is not None:
            correct = self._correct
            correct[start : start + len(score.correct)] = score.correct
        self.score = Score(kls, correct)
