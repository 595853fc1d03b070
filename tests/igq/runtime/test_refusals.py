"""Panels that are damaged, and inputs that do not fit: refused, never computed with."""

from collections.abc import Callable
from random import Random

import pytest
import torch
from torch import Tensor

from igq.errors import RuntimeLibraryError, UnsupportedModelError
from igq.grouping import HEAD_CHANNELS, HEAD_TOKENS, Channels, SliceQuantizer
from igq.runtime import operators
from igq.runtime.panels import attention_panel, linear_panel
from tests.igq.runtime.layers import draw_attention, draw_layer


def changed(panel: Tensor, place: int, value: int) -> Tensor:
    made = panel.clone()
    made.view(torch.int32)[place] = value
    return made


LINEAR = linear_panel(draw_layer(0).layer)
X = draw_layer(0).x
OUTPUTS = len(draw_layer(0).layer.weight.codes)

DAMAGED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "empty": (lambda p: p[:0], "as many bytes"),
    "cut short": (lambda p: p[:-1], "as many bytes"),
    "too long": (lambda p: torch.cat((p, p[:64])), "no bytes beyond"),
    "of another operator": (lambda p: changed(p, 0, 0), "mark of its operator"),
    "of another version": (lambda p: changed(p, 1, 99), "version of this runtime"),
    "without inputs": (lambda p: changed(p, 2, 0), "between 1 and 65536 inputs"),
    "with absurd inputs": (lambda p: changed(p, 2, 2**31 - 1), "between 1 and 65536 inputs"),
    "with absurd outputs": (lambda p: changed(p, 3, -5), "between 1 and 65536 outputs"),
    "with 9 bits": (lambda p: changed(p, 5, 9), "between 2 and 8 bits"),
    "with an unknown rule": (lambda p: changed(p, 6, 3), "a rule of this runtime"),
    "without groups": (lambda p: changed(p, 7, 0), "between 1 and 1024 groups"),
    "rotated by 3": (lambda p: changed(p, 8, 3), "a power of 2"),
    "with unknown flags": (lambda p: changed(p, 9, 1024), "flags of this runtime"),
    "with a scale that is NaN": (lambda p: changed(p, 16, 0x7FC00000), "finite numbers"),
}


class TestPanels:
    @pytest.mark.parametrize("damage", DAMAGED)
    def test_a_damaged_one_is_refused(self, target: str, damage: str) -> None:
        damaged, message = DAMAGED[damage]
        with pytest.raises(RuntimeLibraryError, match=message):
            operators.linear(X, damaged(LINEAR), OUTPUTS, target=target)

    def test_no_header_makes_it_crash(self, target: str) -> None:
        draw, refused = Random(0), 0
        for _ in range(2000):
            panel = changed(LINEAR, draw.randrange(16), draw.choice([-1, 0, 1, 2, 3, 5, 64, 2**30]))
            try:
                operators.linear(X, panel, OUTPUTS, target=target)
            except RuntimeLibraryError:
                refused += 1
        assert refused > 1000

    def test_no_header_of_an_attention_makes_it_crash(self, target: str) -> None:
        draw, drawn, refused = Random(0), draw_attention(1), 0
        for _ in range(2000):
            value = draw.choice([-1, 0, 1, 2, 3, 5, 64, 2**30])
            panel = changed(drawn.panel, draw.randrange(16), value)
            try:
                operators.self_attention(drawn.qkv, panel, target)
            except RuntimeLibraryError:
                refused += 1
        assert refused > 1000

    def test_slices_that_the_runtime_cannot_cut_are_refused(self) -> None:
        layer = draw_layer(0).layer
        own = SliceQuantizer(4, Channels())
        with pytest.raises(UnsupportedModelError, match="got channels with ranges of their own"):
            linear_panel(type(layer)(layer.weight, own))
        q = SliceQuantizer(4, HEAD_TOKENS)
        with pytest.raises(UnsupportedModelError, match="got head tokens with ranges"):
            attention_panel(1, 4, (q, q, q, q))
        v = SliceQuantizer(4, HEAD_CHANNELS)
        with pytest.raises(UnsupportedModelError, match="got channels with ranges"):
            attention_panel(1, 4, (q, q, v, own))


class TestInputs:
    def test_another_number_of_channels_is_refused(self, target: str) -> None:
        with pytest.raises(RuntimeLibraryError, match=r"the panel is for \d+ channels, but got"):
            operators.linear(X[..., 1:], LINEAR, OUTPUTS, target=target)
        with pytest.raises(RuntimeLibraryError, match=r"the panel is for \d+ channels, but got"):
            operators.linear(X, LINEAR, OUTPUTS + 1, target=target)
        drawn = draw_attention(1)
        with pytest.raises(RuntimeLibraryError, match=r"the panel is for \d+ channels, but got"):
            operators.self_attention(drawn.qkv[..., 3:], drawn.panel, target)

    @pytest.mark.usefixtures("unchecked_shapes")
    def test_a_residual_of_another_shape_is_refused(self) -> None:
        with pytest.raises(RuntimeLibraryError, match="`residual` must have shape"):
            operators.linear(X, LINEAR, OUTPUTS, torch.zeros(1))

    def test_another_type_is_refused(self, target: str) -> None:
        with pytest.raises(
            RuntimeLibraryError, match=r"must be float32 on the CPU, but is torch.f"
        ):
            operators.linear(X.double(), LINEAR, OUTPUTS, target=target)


class TestShapes:
    """A tensor of another number of axes would be read past its end."""

    def test_of_a_linear_layer(self) -> None:
        with pytest.raises(RuntimeLibraryError, match=r"`x` must be \(images, tokens..., inputs\)"):
            operators.linear(X[0, 0], LINEAR, OUTPUTS)

    @pytest.mark.parametrize("cut", [lambda x: x[0], lambda x: x[None], lambda x: x[..., :-1]])
    def test_of_an_attention(self, cut: Callable[[Tensor], Tensor]) -> None:
        drawn = draw_attention(1)
        with pytest.raises(RuntimeLibraryError, match=r"`qkv` must be .* but has shape"):
            operators.self_attention(cut(drawn.qkv), drawn.panel)

    def test_a_panel_that_is_not_bytes(self) -> None:
        with pytest.raises(
            RuntimeLibraryError, match=r"must be bytes on the CPU, but is .*float32"
        ):
            operators.linear(X, LINEAR.float(), OUTPUTS)
