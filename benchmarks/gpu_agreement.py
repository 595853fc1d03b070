"""Agreement of a device with the CPU: a part of `benchmarks.gpu_check`, with the models of both."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import igq
from benchmarks.real import SCHEMES
from igq import Candidates, Selection
from igq.arithmetic.affine import QuantizedTensor
from igq.evaluation import divergences, log_probabilities
from igq.quantized import EAGER, Execution, accelerate, assemble, quantize_weights, rotated

VITS = ("vit_tiny_patch16_224", "deit_small_patch16_224", "vit_base_patch16_224")
SWIN = "swin_tiny_patch4_window7_224"
SMALL: dict[str, dict[str, object]] = {
    VITS[0]: {"depth": 1, "img_size": 64},
    SWIN: {"depths": [1, 1, 1, 1], "img_size": 112},
}
"""Arguments that make the models of a rehearsal."""
NUM_GROUPS = (4, 8)
BITS = 4


@dataclass(frozen=True, eq=False)
class Made:
    """A full-precision model and its candidates, on the CPU: each device gets the same numbers."""

    plain: nn.Module
    model: nn.Module
    """The plain one, rotated where its scheme says so."""
    candidates: Candidates
    weights: dict[str, QuantizedTensor]
    images: Tensor

    def candidate(self, device: str, groups: int, execution: Execution = EAGER) -> nn.Module:
        """Return the quantized model on a device."""
        model = copy.deepcopy(self.model).to(device)
        made = assemble(model, self.chosen(groups), self.weights)
        return accelerate(made, execution, max(NUM_GROUPS))

    def chosen(self, groups: int) -> Selection:
        """Return the quantizers with this many groups in every layer."""
        return self.candidates.select(igq.uniform(self.candidates.layers, groups))


def make(name: str, scheme: str, images: int, arguments: dict[str, object]) -> Made:
    """Make a model with random weights, and candidates calibrated on noise.

    The weights are wide enough for predictions to differ from image to image.
    """
    generator = torch.manual_seed(0)  # of torch's own, which biases are drawn from
    plain: Any = igq.create(name, arguments).requires_grad_(False)
    for parameter in plain.parameters():
        if parameter.ndim > 1:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * parameter[0].numel() ** -0.5)
    x = torch.randn(images, 3, *plain.patch_embed.img_size, generator=generator)
    model = rotated(plain, SCHEMES[scheme].rotation)
    candidates = igq.fit(igq.observe(model, x[:4], SCHEMES[scheme]), NUM_GROUPS, BITS)
    return Made(plain, model, candidates, quantize_weights(model, BITS), x)


def agreement(device: str, small: bool) -> dict[str, dict[str, float]]:
    """Compare the device with the CPU, for each way of computing and each analysis."""
    images, arguments = (4, SMALL[VITS[0]]) if small else (64, {})
    found: dict[str, dict[str, float]] = {}
    for scheme in SCHEMES:
        made = make(VITS[0], scheme, images, dict(arguments))
        found[f"{scheme}, float32"] = _predictions(made, device, torch.float32)
        found[f"{scheme}, float64"] = _predictions(made, device, torch.float64)
        found[f"{scheme}, TF32 convolution"] = _predictions(made, device, torch.float32, True)
    shallow = make(VITS[0], "paper", 8, arguments | {"depth": 2})
    return found | dict(_analyses(shallow, device))


def _predictions(
    made: Made, device: str, kind: torch.dtype, tf32: bool = False
) -> dict[str, float]:
    """Compare one candidate's predictions on the device with those on the CPU."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, tf32
    models = [made.candidate(d, 8).to(kind) for d in ("cpu", device)]
    here, there = (log_probabilities(m, made.images.to(kind)) for m in models)
    exact = log_probabilities(models[0].double(), made.images.double())
    torch.backends.cudnn.allow_tf32 = before
    full = log_probabilities(made.model, made.images)
    return {
        "equal argmax": (here.argmax(-1) == there.argmax(-1)).double().mean().item(),
        "KL": divergences(here, there).mean().item(),
        "KL of rounding, on the CPU": divergences(exact, here).mean().item(),
        "KL of quantization": divergences(full, here).mean().item(),
    }


def _analyses(made: Made, device: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Compare the results that a study computes once."""
    models = made.model, copy.deepcopy(made.model).to(device)
    for analysis in (igq.sensitivity, igq.predicted_sensitivity):
        tables = [analysis(model, made.candidates, made.images) for model in models]
        yield analysis.__name__, _relative(*(_numbers(t.values()) for t in tables))
    a, b = (igq.correct(m, made.candidates, made.images, BITS, 2) for m in models)
    for name in ("scale", "codes"):
        pair = ([getattr(w, name) for w in c.weights.values()] for c in (a, b))
        yield f"correct: {name}", _relative(*map(_joined, pair))
    pair = ([p for p in c.model.parameters() if p.ndim == 1] for c in (a, b))
    yield "correct: vectors", _relative(*map(_joined, pair))


def _numbers(rows: Iterable[Mapping[Any, float]]) -> Tensor:
    return torch.tensor([list(row.values()) for row in rows], dtype=torch.float64).flatten()


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().cpu().double().flatten() for tensor in tensors])


def _relative(a: Tensor, b: Tensor) -> dict[str, float]:
    each = (a - b).abs() / torch.maximum(a.abs(), b.abs()).clamp(min=1e-12)
    return {
        "largest relative difference": each.max().item(),
        "median": each.median().item(),
        "norm of the difference": ((a - b).norm() / a.norm()).item(),
        "share that differs": (a != b).double().mean().item(),
    }
