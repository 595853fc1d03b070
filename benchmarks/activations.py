"""What else could be done with activations: each change alone, weights in full precision.

    python -m benchmarks.activations --model vit_tiny_patch16_224 --images 300

Differences are paired with the quantizer as it is, on the same images, with one standard error: of
the KL, and of the logarithm of the shift of logits, which scatters less.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

import igq
from benchmarks.real import arguments, bench, machine, uniform_quantizers
from igq.affine import affine_parameters, fake_quantize
from igq.evaluation import divergences, log_probabilities, paired_difference, shifts
from igq.fitting import fit_groups
from igq.grouping import GroupQuantizer, Quantizer, SliceQuantizer
from igq.layers import Layer, Slices, slice_ranges
from igq.modules import slot_of
from igq.vit import with_slots

LEVELS = 16
"""Of a logarithmic code of 4 bits."""


class Own(nn.Module):
    """Bounds that are a share of the range of what passes, along the last axis."""

    def __init__(self, bits: int, share: float = 1.0) -> None:
        super().__init__()
        self.bits, self.share = bits, share

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        return fake_quantize(
            x, *affine_parameters(self.share * lower, self.share * upper, self.bits), self.bits
        )


class Renormalised(nn.Module):
    """Rows divided by their sum once they are quantized."""

    def __init__(self, slot: nn.Module) -> None:
        super().__init__()
        self.slot = slot

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.slot(x)
        return y / y.sum(-1, keepdim=True).clamp(min=0.05)


class Logarithmic(nn.Module):
    """Each entry of a row as a power of 2^-1/2 times the row's maximum; the last code is 0."""

    def forward(self, x: Tensor) -> Tensor:
        most = x.amax(-1, keepdim=True)
        code = (-2 * (x / most).clamp(min=1e-12).log2()).round()
        return torch.where(code >= LEVELS - 1, 0, most * torch.exp2(-code / 2))


class Rotated(nn.Module):
    """Tokens in a random orthogonal basis, each with its own range there."""

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.basis = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        self.own = Own(bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x @ self.basis) @ self.basis.T  # type: ignore[no-any-return]


class Scaled(nn.Module):
    """Tokens divided by their largest magnitude before their channels pick groups."""

    def __init__(self, quantizer: GroupQuantizer | None = None) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        size = x.abs().amax(-1, keepdim=True).clamp(min=1e-6)
        if self.quantizer is not None:
            return self.quantizer(x / size) * size
        self.seen.append(slice_ranges(x / size, Slices.CHANNELS).reshape(len(x), -1, 2))
        return x


def scaled(model: nn.Module, images: Tensor, kind: str, groups: int, bits: int) -> list[Scaled]:
    """Fitted slots for every layer of a kind, in order."""
    slots = {layer.name: Scaled() for layer in igq.layers(model) if is_kind(layer, kind)}
    with torch.inference_mode():
        with_slots(model, lambda layer: slots.get(layer.name, nn.Identity()))(images)
    seen = (torch.cat(slot.seen) for slot in slots.values())
    fitted = (fit_groups(ranges, [groups], bits, Slices.CHANNELS)[groups] for ranges in seen)
    return [Scaled(quantizer) for quantizer in fitted]


def in_order(slots: Iterable[nn.Module]) -> Callable[[Layer, Quantizer], nn.Module]:
    """Gives one after the other."""
    rest = iter(slots)
    return lambda layer, quantizer: next(rest)


def is_kind(layer: Layer, *kinds: str) -> bool:
    """Whether the layer's name ends so; the patch embedding is of no kind."""
    return layer.name.rpartition(".")[2] in kinds and not layer.name.startswith("patch_embed")


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", images=300)
    given, bits = bench(options), options.bits
    unit_rows = uniform_quantizers(given, options)
    labelled = (given.reference.argmax(-1) == given.labels).double().mean()

    def predictions(slot: Callable[[Layer, Quantizer], nn.Module]) -> Tensor:
        made = with_slots(given.model, lambda layer: slot(layer, unit_rows[layer.name]))
        return log_probabilities(made, given.images)

    def rows(quantizer: Quantizer) -> GroupQuantizer:
        assert isinstance(quantizer, GroupQuantizer)
        return GroupQuantizer(quantizer.lower, quantizer.upper, quantizer.bits, Slices.ROWS)

    own_rows = SliceQuantizer(bits, Slices.UNIT_ROWS)

    def of(kinds: tuple[str, ...], made: Callable[[Layer, Quantizer], nn.Module]) -> Tensor:
        return predictions(lambda la, q: made(la, q) if is_kind(la, *kinds) else slot_of(q))

    base = of((), lambda la, q: nn.Identity())
    kls, moved = divergences(given.reference, base), shifts(given.reference, base).log()

    def show(name: str, outputs: Tensor) -> None:
        kl, shift = divergences(given.reference, outputs), shifts(given.reference, outputs).log()
        less, closer = paired_difference(kl, kls), paired_difference(shift, moved)
        kept = (outputs.argmax(-1) == given.labels).double().mean() / labelled
        print(
            f"| {name} | {kl.mean():.3f} | {less.mean:+.3f} ± {less.standard_error:.3f} "
            f"| {closer.mean:+.3f} ± {closer.standard_error:.3f} | {kept:.3f} |",
            flush=True,
        )

    print(
        f"{options.model}, A{bits}, {options.groups} groups, {options.images} images; {machine()}"
    )
    print("| activations | KL | less the first | log shift less the first | top-1 kept |")
    print("|---|---|---|---|---|")
    softmax, head = ("softmax",), ("head",)
    show("as they are", base)
    show("softmax: rows as in the paper", of(softmax, lambda la, q: slot_of(rows(q))))
    renormalised = of(softmax, lambda la, q: Renormalised(slot_of(rows(q))))
    show("softmax: rows divided by their sum", renormalised)
    show("softmax: each row's own range", of(softmax, lambda la, q: slot_of(own_rows)))
    show("softmax: powers of the root of 1/2", of(softmax, lambda la, q: Logarithmic()))
    show("softmax: not quantized", of(softmax, lambda la, q: nn.Identity()))
    show("head: 0.8 of its range", of(head, lambda la, q: Own(bits, 0.8)))
    show("head: not quantized", of(head, lambda la, q: nn.Identity()))
    show("q, k: rotated", of(("q", "k"), lambda la, q: Rotated(la.channels, bits)))
    for kind in ("qkv", "proj", "fc1", "fc2"):
        slots = scaled(given.model, given.calibration, kind, options.groups, bits)
        show(f"{kind}: tokens scaled", of((kind,), in_order(slots)))
        show(f"{kind}: rotated", of((kind,), lambda la, q: Rotated(la.channels, bits)))


if __name__ == "__main__":
    main()
