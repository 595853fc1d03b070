"""Modules with a slot where an activation passes."""

import pytest
import torch
from torch import Tensor, nn

from igq import Assignment, GroupQuantizer
from igq.arithmetic.weights import quantize_weight
from igq.formats.native.compat import HEADS
from igq.grouping import Channels, Rows, SliceQuantizer
from igq.modules import Conv2d, FakeQuantize, FakeQuantizeSlices, Linear, Observer, slot_of


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def quantizer() -> GroupQuantizer:
    lower, upper = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 3.0])
    return GroupQuantizer(lower, upper, 4, Channels(Assignment.LEAST_ERROR))


class TestFakeQuantize:
    def test_it_gives_what_its_quantizer_gives(self, x: Tensor, quantizer: GroupQuantizer) -> None:
        assert torch.equal(FakeQuantize(quantizer)(x), quantizer(x))

    def test_it_gives_its_quantizer_back(self, quantizer: GroupQuantizer) -> None:
        back = FakeQuantize(quantizer).quantizer
        assert torch.equal(back.lower, quantizer.lower)
        assert torch.equal(back.upper, quantizer.upper)
        assert (back.bits, back.grouping) == (quantizer.bits, quantizer.grouping)

    def test_what_it_holds_follows_the_model(
        self, x: Tensor, quantizer: GroupQuantizer, device: torch.device
    ) -> None:
        moved = FakeQuantize(quantizer).to(device)
        torch.testing.assert_close(moved(x.to(device)).cpu(), quantizer(x))

    def test_it_prints_what_it_does(self, quantizer: GroupQuantizer) -> None:
        text = repr(FakeQuantize(quantizer))
        assert all(part in text for part in ("num_groups=2", "bits=4", "Channels", "least_error"))


class TestSlotOf:
    def test_a_fitted_quantizer_and_one_of_own_ranges_each_have_their_module(
        self, x: Tensor, quantizer: GroupQuantizer
    ) -> None:
        own = SliceQuantizer(4, Channels())
        assert isinstance(slot_of(quantizer), FakeQuantize)
        assert isinstance(slot_of(own), FakeQuantizeSlices)
        for each in (quantizer, own):
            assert torch.equal(slot_of(each)(x), each(x))

    def test_own_ranges_print_what_they_do(self) -> None:
        text = repr(slot_of(SliceQuantizer(4, HEADS)))
        assert all(part in text for part in ("num_groups=1", "bits=4", "heads"))


class TestObserver:
    def test_it_passes_its_input_on(self, x: Tensor) -> None:
        assert Observer(Channels())(x) is x

    def test_it_keeps_the_ranges_of_every_image_it_saw(self, x: Tensor) -> None:
        observer = Observer(Channels())
        observer(x[:1])
        observer(x[1:])
        assert torch.equal(observer.ranges(), Channels().ranges(x).squeeze(1))

    def test_rows_of_all_heads_are_kept_side_by_side(self) -> None:
        observer = Observer(Rows())
        observer(torch.rand(2, 3, 5, 5))
        assert observer.ranges().shape == (2, 15, 2)


class TestProducts:
    SOURCES = pytest.mark.parametrize(
        ("source", "product", "shape"),
        [
            (nn.Linear(4, 3), Linear, (2, 5, 4)),
            (nn.Linear(4, 3, bias=False), Linear, (2, 5, 4)),
            (nn.Conv2d(4, 3, kernel_size=2, stride=2, padding=1), Conv2d, (2, 4, 6, 6)),
            (nn.Conv2d(4, 4, kernel_size=3, dilation=2, groups=2), Conv2d, (2, 4, 6, 6)),
        ],
        ids=["linear", "linear-without-bias", "conv-with-stride", "conv-in-groups"],
    )

    @SOURCES
    def test_with_nothing_in_its_slot_it_is_what_it_replaces(
        self, source: nn.Module, product: type, shape: tuple[int, ...]
    ) -> None:
        x = torch.randn(shape)
        assert torch.equal(product(source, nn.Identity(), None)(x), source(x))

    @SOURCES
    def test_its_input_passes_the_slot(
        self, source: nn.Module, product: type, shape: tuple[int, ...]
    ) -> None:
        x = torch.randn(shape)
        assert torch.equal(product(source, Double(), None)(x), source(2 * x))

    @SOURCES
    def test_a_quantized_weight_takes_the_place_of_its_own(
        self, source: nn.Module, product: type, shape: tuple[int, ...]
    ) -> None:
        weight = quantize_weight(source.weight, bits=3)
        made = product(source, nn.Identity(), weight)
        assert torch.equal(made.weight, weight.dequantize())
        assert "weight" not in dict(made.named_parameters())
        assert not torch.equal(made(torch.ones(shape)), source(torch.ones(shape)))

    def test_an_unquantized_weight_is_shared_and_not_copied(self) -> None:
        source = nn.Linear(4, 3)
        assert Linear(source, nn.Identity(), None).weight is source.weight
