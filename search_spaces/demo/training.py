"""Train the demo's model: `python -m search_spaces.demo.training [--out FILE]`.

Two minutes on one CPU thread, and the same weights each time on one machine and version of torch.

In large ViTs some channels are much wider than others, which is why they are hard to quantize; a
small one trained for minutes has few of these. So training starts from channels that differ: each
LayerNorm gain is multiplied by exp(spread x a normal number), and the linear layer that reads it is
divided by the same, which leaves the function as it was. The spread grows from block to block.

Shapes: images (n, 1, 8, 8), labels (n,).
"""

import argparse
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from igq.vit import create
from search_spaces import load
from search_spaces.demo.digits import Digits, digits_split

# Widths of what `distort` draws from (radians, shares, half images), and how many images it takes.
TURN, STRETCH, SHEAR, MOVE = 0.3, 0.2, 0.4, 0.3
DISTORTED = 0.7

WEIGHTS = Path(__file__).with_name("digits_vit.safetensors")


@dataclass(frozen=True)
class Training:
    """The choices that decide the weights: two equal values train two equal models."""

    seed: int = 0
    epochs: int = 200
    batch_size: int = 100
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup_steps: int = 100
    label_smoothing: float = 0.1
    largest_gradient: float = 1.0
    spreads: tuple[float, float] = (0.2, 1.0)  # of the first block and the last


def train(training: Training, digits: Digits, say: Callable[[str], None] = print) -> nn.Module:
    """Train the demo's architecture on these digits, and return it in evaluation mode.

    >>> digits = digits_split().train
    >>> model = train(Training(epochs=0), digits)
    >>> model(torch.from_numpy(digits.images[:2])).shape
    torch.Size([2, 10])
    """
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    with _repeatable(training.seed) as generator:
        model = _start(training, generator)
        optimizer, schedule = _descent(model, training, len(labels))
        for epoch in range(1, training.epochs + 1):
            order = torch.randperm(len(labels), generator=generator)
            for batch in torch.split(order, training.batch_size):
                logits = model(distort(images[batch], generator))
                loss = F.cross_entropy(
                    logits, labels[batch], label_smoothing=training.label_smoothing
                )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), training.largest_gradient)
                optimizer.step()
                schedule.step()
            if epoch % 20 == 0:
                say(f"epoch {epoch} of {training.epochs}: loss {loss.item():.3f}")
    return model.eval()


def distort(
    images: Float[Tensor, "images 1 8 8"], generator: torch.Generator
) -> Float[Tensor, "images 1 8 8"]:
    """Turn, stretch, shear and move most of the images a little, each in its own way."""
    count = len(images)

    def around_zero(width: float) -> Tensor:
        return some * width * (torch.rand(count, generator=generator) - 0.5)

    some = (torch.rand(count, generator=generator) < DISTORTED).float()
    turn, shear = around_zero(TURN), around_zero(SHEAR)
    wide, high = 1 + around_zero(STRETCH), 1 + around_zero(STRETCH)
    right, down = around_zero(MOVE), around_zero(MOVE)
    across = torch.stack((wide * turn.cos(), shear - turn.sin(), right), dim=1)
    along = torch.stack((turn.sin(), high * turn.cos(), down), dim=1)
    grid = F.affine_grid(
        torch.stack((across, along), dim=1), list(images.shape), align_corners=False
    )
    # Beyond the edge grid_sample finds 0, and the background is -1: shift, sample, shift back.
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def accuracy(model: nn.Module, digits: Digits) -> float:
    """Return the share of these digits that the model names rightly."""
    with torch.inference_mode():
        named = model(torch.from_numpy(digits.images)).argmax(dim=1)
    return float((named == torch.from_numpy(digits.labels)).float().mean())


def save(model: nn.Module, path: Path) -> None:
    """Write the model's weights, all of them or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(safetensors.torch.save(model.state_dict()))
    os.replace(partial, path)


@contextmanager
def _repeatable(seed: int) -> Iterator[torch.Generator]:
    """Make torch do the same on every call, and leave it afterwards as it was."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)


def _start(training: Training, generator: torch.Generator) -> nn.Module:
    spec = load("demo").model
    model = create(spec.name, spec.arguments).train()
    blocks = list(cast(nn.Sequential, model.get_submodule("blocks")))
    spreads = torch.linspace(*training.spreads, len(blocks)).tolist()
    for block, spread in zip(blocks, spreads, strict=True):
        for norm, linear in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
            _widen(block.get_submodule(norm), block.get_submodule(linear), spread, generator)
    return model


def _widen(norm: nn.Module, linear: nn.Module, spread: float, generator: torch.Generator) -> None:
    """Make some channels between the two wider and some narrower; what they compute stays."""
    gains, weight = norm.get_parameter("weight"), linear.get_parameter("weight")
    factors = torch.exp(spread * torch.randn(len(gains), generator=generator))
    with torch.no_grad():
        gains.mul_(factors)
        weight.div_(factors)


def _descent(
    model: nn.Module, training: Training, images: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    steps = training.epochs * math.ceil(images / training.batch_size)

    def rate(step: int) -> float:
        warmth = min(1.0, (step + 1) / training.warmup_steps)
        return warmth * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def main() -> None:
    """Train, say how good the model is on digits it has not seen, and write its weights."""
    parser = argparse.ArgumentParser(description="Train the demo's model again.")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="file (default: the shipped one)")
    out: Path = parser.parse_args().out
    if not out.parent.is_dir():  # said before two minutes of training, not after
        parser.error(f"`--out` must be a file in an existing folder, but got {out}.")
    split = digits_split()
    model = train(Training(), split.train)
    save(model, out)
    print(
        f"accuracy on the {len(split.rest.labels)} other digits: "
        f"{accuracy(model, split.rest):.2%}; weights in {out}"
    )


if __name__ == "__main__":
    main()
