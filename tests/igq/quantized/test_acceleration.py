"""The fast way computes what the eager one does."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import Assignment, Grouping, GroupQuantizer, SliceQuantizer
from igq.evaluation import log_probabilities
from igq.formats.native.compat import HEADS
from igq.grouping import (
    Channels,
    ContiguousChannels,
    ContiguousKeys,
    FittedGrouping,
    Rows,
    Whole,
)
from igq.modules import FakeQuantize, FakeQuantizeSlices, SwitchedFakeQuantize
from igq.quantized import (
    EAGER,
    Execution,
    accelerate,
    assemble,
    fastest,
    quantize_weights,
    quantizers,
    set_quantizers,
)

COMPILED = Execution(compiled=True, bfloat16=False)
FAST = Execution(compiled=True, bfloat16=True)


@pytest.fixture
def activation() -> Tensor:
    return 3 * torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


class TestSwitchedFakeQuantize:
    @pytest.mark.parametrize("kind", [Channels, partial(Rows, unit=True), Whole])
    @pytest.mark.parametrize("groups", [1, 2, 8])
    @pytest.mark.parametrize("bits", [2, 4, 8])
    @pytest.mark.parametrize("assignment", Assignment)
    def test_it_gives_what_the_loaded_quantizer_gives(
        self,
        activation: Tensor,
        kind: Callable[..., FittedGrouping],
        groups: int,
        bits: int,
        assignment: Assignment,
    ) -> None:
        grouping = kind(assignment=assignment)
        upper = torch.linspace(1, 9, groups)
        quantizer = GroupQuantizer(-upper.flip(0), upper, bits, grouping)
        slot = SwitchedFakeQuantize(grouping, 8)
        slot.load(quantizer)
        assert torch.equal(slot(activation), FakeQuantize(quantizer)(activation))
        assert slot.quantizer is quantizer

    def test_without_capacity_every_slice_has_its_own_range(self, activation: Tensor) -> None:
        quantizer = SliceQuantizer(4, HEADS)
        slot = SwitchedFakeQuantize(HEADS, capacity=0)
        slot.load(quantizer)
        assert torch.equal(slot(activation), FakeQuantizeSlices(quantizer)(activation))

    @pytest.mark.parametrize("bits", [2, 4])
    @pytest.mark.parametrize("grouping", [ContiguousChannels(), ContiguousKeys()], ids=str)
    def test_contiguous_groups_may_be_of_any_number(self, grouping: Grouping, bits: int) -> None:
        x = torch.randn(2, 3, 5, 49, generator=torch.Generator().manual_seed(0)).softmax(-1)
        slot = SwitchedFakeQuantize(grouping, capacity=0)
        for groups in (1, 8, 5, 24):
            quantizer = SliceQuantizer(bits, grouping, groups)
            slot.load(quantizer)
            assert torch.equal(slot(x), quantizer(x))

    @pytest.mark.parametrize("capacity", [0, 3])
    def test_it_is_off_until_something_is_loaded_and_again_after_none(
        self, activation: Tensor, capacity: int
    ) -> None:
        slot = SwitchedFakeQuantize(Channels(), capacity)
        assert torch.equal(slot(activation), activation)
        bounds = torch.tensor([-1.0]), torch.tensor([1.0])
        slot.load(GroupQuantizer(*bounds, 4, Channels()) if capacity else None)
        slot.load(None)
        assert torch.equal(slot(activation), activation)

    def test_a_smaller_number_of_groups_leaves_nothing_of_a_larger_one(
        self, activation: Tensor
    ) -> None:
        slot = SwitchedFakeQuantize(Channels(), capacity=8)
        for groups in (8, 2):
            upper = torch.linspace(1, 9, groups)
            quantizer = GroupQuantizer(-upper, upper, 4, Channels())
            slot.load(quantizer)
        assert torch.equal(slot(activation), quantizer(activation))

    def test_it_says_which_quantizers_it_can_hold(self) -> None:
        quantizer = GroupQuantizer(torch.zeros(4), torch.ones(4), 4, Rows())
        assert SwitchedFakeQuantize(Rows(), 4).takes(quantizer)
        assert not SwitchedFakeQuantize(Rows(), 3).takes(quantizer)
        assert not SwitchedFakeQuantize(Rows(Assignment.LEAST_ERROR), 4).takes(quantizer)
        assert not SwitchedFakeQuantize(Rows(), 3).takes(SliceQuantizer(4, Rows()))
        assert SwitchedFakeQuantize(Rows(), 0).takes(SliceQuantizer(4, Rows()))


def built(vit: nn.Module, candidates: igq.Candidates, groups: int) -> nn.Module:
    chosen = candidates.select(igq.uniform(candidates.layers, groups))
    return assemble(vit, chosen, quantize_weights(vit, 8))


def test_codes_are_exact_in_bfloat16(vit: nn.Module, candidates: igq.Candidates) -> None:
    linear = built(vit, candidates, 2).get_submodule("blocks.0.mlp.fc1")
    linear.in_bfloat16()
    codes, scale = linear.codes.float(), linear.scale[:, None]
    assert torch.equal(codes * scale, linear.quantized_weight.dequantize())


def test_bfloat16_products_change_predictions_little(
    vit: nn.Module, images: Tensor, ranges: igq.Ranges
) -> None:
    candidates = igq.fit(ranges, (1, 2), bits=8)
    eager = log_probabilities(built(vit, candidates, 2), images)
    fast = accelerate(built(vit, candidates, 2), Execution(False, True))
    torch.testing.assert_close(log_probabilities(fast, images), eager, atol=0.03, rtol=0.03)


def test_eager_execution_changes_nothing(vit: nn.Module, candidates: igq.Candidates) -> None:
    model = built(vit, candidates, 2)
    before = repr(model)
    assert accelerate(model, EAGER) is model
    assert repr(model) == before


def test_quantizers_are_exchanged_and_read_back_in_an_accelerated_model(
    vit: nn.Module, candidates: igq.Candidates, images: Tensor, without_compiler: None
) -> None:
    model = accelerate(built(vit, candidates, 1), COMPILED, max(candidates.num_groups))
    for groups in (4, 2):
        chosen = candidates.select(igq.uniform(candidates.layers, groups))
        set_quantizers(model, chosen)
        held = quantizers(model)
        assert all(held[name] is q for name, q in chosen.items() if name.startswith("blocks"))
        expected = log_probabilities(built(vit, candidates, groups), images)
        torch.testing.assert_close(log_probabilities(model, images), expected)


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda *given, **named: None)


def test_without_a_compiler_blocks_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "nowhere")
    assert not fastest("cpu").compiled


SCRIPT = """
import torch, igq
from igq.quantized import *
arguments = {"img_size": 16, "patch_size": 4, "in_chans": 1, "num_classes": 10}
arguments |= {"embed_dim": 32, "depth": 2, "num_heads": 2}
vit = igq.create("vit_tiny_patch16_224", arguments).to("DEVICE")
images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
candidates = igq.fit(igq.observe(vit, images, SCHEME), (1, 2, 4), bits=8)
vit = igq.rotated(vit, candidates.scheme.rotation)
weights = quantize_weights(vit, 8)
chosen = [candidates.select(igq.uniform(candidates.layers, g)) for g in (1, 2, 4)]
eager = assemble(vit, chosen[0], weights)
fast = accelerate(assemble(vit, chosen[0], weights), Execution(True, BFLOAT16), 4)
for quantizers in chosen:
    set_quantizers(eager, quantizers), set_quantizers(fast, quantizers)
    given = [igq.evaluation.log_probabilities(m, images, batch_size=4) for m in (eager, fast)]
    torch.testing.assert_close(*given, atol=0.02, rtol=0.02)
print("compiled", torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bfloat16", "scheme"), [(False, "igq.Scheme.PAPER"), (True, "igq.Scheme.BEST")]
)
def test_compiled_blocks_give_what_eager_ones_give_and_are_compiled_once(
    bfloat16: bool, scheme: str, device: torch.device
) -> None:
    """In a process of its own: compiled code must not pass the checks of signatures."""
    if device.type == "cpu" and not fastest("cpu").compiled:
        pytest.skip("this machine has no C++ compiler")
    script = SCRIPT.replace("BFLOAT16", str(bfloat16)).replace("SCHEME", scheme)
    ended = run(script.replace("DEVICE", device.type))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "compiled 1"  # two blocks, three allocations, one graph


@pytest.mark.slow
def test_where_compiling_fails_the_model_runs_as_it_is() -> None:
    script = SCRIPT.replace("BFLOAT16", "False").replace("DEVICE", "cpu")
    script = script.replace("SCHEME", "igq.Scheme.PAPER")
    ended = run(script, CXX="/nowhere/c++", TORCHINDUCTOR_CACHE_DIR="")
    assert ended.returncode == 0, ended.stderr


def test_bfloat16_products_agree_with_float32_ones(
    make_vit: Callable[..., nn.Module], ranges: igq.Ranges, images: Tensor, device: torch.device
) -> None:
    vit, candidates = make_vit().to(device), igq.fit(ranges, (1, 2), bits=8)
    eager = log_probabilities(built(vit, candidates, 2), images)
    fast = accelerate(built(vit, candidates, 2), Execution(bfloat16=True))
    torch.testing.assert_close(log_probabilities(fast, images), eager, atol=0.1, rtol=0.1)
