"""The latency table of a model on this machine."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import igq
import search_spaces
from igq import RuntimeLibraryError, Scheme, Setting, UnsupportedModelError
from igq.costs import Timing, latency_table
from igq.runtime.library import library
from igq.runtime.probes import Probe, shapes
from pipeline.commands.machine import profile as profiling
from pipeline.commands.machine.profile import Effort, in_turns, profile, space_of_model, with_line
from pipeline.preparation.costs.latency import read_profile, this_machine
from pipeline.reports.profiles import latency_lines
from pipeline.study.progress import SilentDisplay
from search_spaces import SearchSpace

compiled = pytest.mark.skipif(library() is None, reason="the runtime is not built")
FEW = Effort(rounds=2)
Write = Callable[..., Path]


@pytest.fixture
def space(write_space: Write, tmp_path: Path) -> SearchSpace:
    return search_spaces.load(write_space(tmp_path))


@compiled
def test_the_table_that_is_written_has_every_layer_and_setting(
    space: SearchSpace, tmp_path: Path
) -> None:
    made = profile(space, "here", tmp_path / "latency.json", SilentDisplay(), FEW)
    assert read_profile(tmp_path / "latency.json") == made
    assert (made.machine, made.model) == (this_machine(1), "vit_tiny_patch16_224")
    layers = igq.layers(igq.create(space.model.name, space.model.arguments))
    table = latency_table(made, layers, space.scheme, space.options)
    assert table.layers.keys() == {layer.name for layer in layers if layer.grouped}
    for row in table.layers.values():
        assert {setting.num_groups for setting in row} == {1, 2, 4}
        assert min(row.values()) > 0
    lines = latency_lines(made)
    assert lines[0].startswith("vit_tiny_patch16_224 on here (")
    assert len(lines) == 2 + len(made.operators)


@compiled
def test_bits_that_are_searched_are_measured_each(write_space: Write, tmp_path: Path) -> None:
    mixed = {"weight_bits": [3, 8], "activation_bits": [4, 6], "budget": {"uniform": "w3a4g2"}}
    space = search_spaces.load(write_space(tmp_path, **mixed))
    made = profile(space, "here", tmp_path / "latency.json", SilentDisplay(), FEW)
    linear = next(o for o in made.operators if "blocks.0.mlp.fc1" in o.layers)
    assert len(linear.timings) == 2 * 2 * 3
    assert Setting(8, 6, 4) in linear.timings


@compiled
def test_groups_between_are_fitted_where_measuring_all_would_take_too_long(
    write_space: Write, tmp_path: Path
) -> None:
    space = search_spaces.load(write_space(tmp_path, num_groups=[1, 2, 4, 8]))
    made = profile(space, "here", tmp_path / "l.json", SilentDisplay(), Effort(2, seconds=1e-9))
    fitted = Counter(
        setting.num_groups
        for operator in made.operators
        for setting, timing in operator.timings.items()
        if timing.fitted
    )
    assert fitted == {2: 5}  # qkv, softmax, proj, fc1, fc2
    assert read_profile(tmp_path / "l.json") == made


def test_a_line_goes_through_the_groups_of_the_same_bits_alone() -> None:
    known = {Setting(w, 4, g): Timing(float(w * g), 0.1) for w in (3, 8) for g in (1, 4, 8)}
    found = with_line(known, [Setting(8, 4, 2), Setting(5, 4, 2)])
    assert found[Setting(8, 4, 2)].median_ms == pytest.approx(16)
    assert found[Setting(8, 4, 2)].fitted
    assert Setting(5, 4, 2) not in found


def test_all_run_once_in_each_round_and_in_another_order() -> None:
    ran: list[int] = []

    def probe(number: int) -> Probe:
        def run() -> torch.Tensor:
            ran.append(number)
            return torch.zeros(1)

        return Probe(run, ())

    in_turns({number: probe(number) for number in range(6)}, rounds=4)
    rounds = [tuple(ran[i : i + 6]) for i in range(0, 24, 6)]
    assert all(sorted(one) == list(range(6)) for one in rounds)
    assert len(set(rounds)) == 4


def test_layers_of_one_shape_are_measured_once() -> None:
    vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 3})
    found = shapes(igq.layers(vit), Scheme.BEST)
    assert sorted(len(layers) for layers in found.values()) == [1, 1, 3, 3, 3, 3, 3]


@compiled
def test_a_model_whose_attention_runs_in_torch_is_refused(tmp_path: Path) -> None:
    arguments = {"img_size": 32, "window_size": 4, "embed_dim": 24, "depths": [1, 1]}
    arguments |= {"num_heads": [1, 2], "num_classes": 10}
    content: dict[str, Any] = {"name": "swin_tiny_patch4_window7_224", "arguments": arguments}
    space = space_of_model("x").model_copy(
        update={"model": search_spaces.ModelSpec(**content), "num_groups": (1, 2)}
    )
    with pytest.raises(UnsupportedModelError, match="must be a plain ViT or DeiT to be profiled"):
        profile(space, "here", tmp_path / "latency.json", SilentDisplay(), FEW)


def test_without_the_compiled_runtime_nothing_is_measured(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "targets", tuple)
    with pytest.raises(RuntimeLibraryError, match="must be measured with the compiled runtime"):
        profile(space, "here", tmp_path / "latency.json", SilentDisplay(), FEW)
