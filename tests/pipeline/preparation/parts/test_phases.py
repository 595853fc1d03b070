"""Heavy phases in parts: the same bytes however they are cut, and none is computed twice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import igq
from igq.progress import Progress, silent
from igq.quantized import quantize_weights
from igq.sensitivities import measure_parts, predicted_batches, predicted_from
from igq.settings import Options
from pipeline.evaluation.work import Here, Part
from pipeline.preparation.parts import phases
from pipeline.preparation.parts.phases import (
    Common,
    Phase,
    cut,
    ensure,
    measure_layers,
    measure_layers_by_part,
    predict_batches,
)
from pipeline.preparation.parts.shared import Results, Wanted
from pipeline.study.seals import read_sealed, write_sealed
from tests.makers import FITTED


@pytest.fixture(scope="module")
def common(model: nn.Module) -> Common:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    candidates = igq.fit(igq.observe(model, images, FITTED), (1, 2, 4), bits=4)
    return Common(model, candidates, images, images, measured_on=3, chunk_size=2)


def names(common: Common) -> list[str]:
    return [layer.name for layer in common.candidates.layers if layer.grouped]


@pytest.mark.parametrize("pieces", [1, 3])
def test_measured_sensitivities_do_not_depend_on_the_cut(common: Common, pieces: int) -> None:
    every = names(common)
    whole = igq.sensitivity(common.model, common.candidates, common.images[:3], 2)
    found: dict[str, Any] = {}
    for a, b in cut([1.0] * len(every), pieces):
        found |= measure_layers(common, every[a:b], "cpu", silent)
    assert found == {n: {str(s): kl for s, kl in row.items()} for n, row in whole.items()}


@pytest.mark.parametrize("pieces", [1, 3])
def test_predicted_sensitivities_do_not_depend_on_the_cut(
    common: Common, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 4 * sum(m.tokens * m.channels for m in common.candidates.layers if m.grouped)
    monkeypatch.setattr("igq.sensitivities.predicted.MEMORY", 3 * 2 * each)  # two images
    batches = predicted_batches(common.candidates, len(common.images))
    assert batches == 3
    sums: list[Any] = []
    for part in cut([1.0] * batches, pieces):
        sums += predict_batches(common, part, "cpu", silent).values()
    whole = igq.predicted_sensitivity(common.model, common.candidates, common.images)
    assert predicted_from(common.candidates, sums, len(common.images)) == whole


def test_sensitivities_of_parts_do_not_depend_on_the_cut(common: Common) -> None:
    options = Options((3, 4), (4, 6), (1, 2, 4))
    weights = {bits: quantize_weights(common.model, bits) for bits in (3, 4)}
    bits = replace(common, weights=weights, options=options)
    every = [layer.name for layer in common.candidates.layers]
    found: dict[str, Any] = {}
    for a, b in cut([1.0] * len(every), 3):
        found |= measure_layers_by_part(bits, every[a:b], "cpu", silent)
    images = common.images[:3]
    assert found == measure_parts(common.model, common.candidates, weights, options, images)


@pytest.mark.parametrize("pieces", [1, 2, 3, 20])
def test_a_cut_covers_everything_once(pieces: int) -> None:
    costs = [5.0, 4.0, 3.0, 2.0, 1.0, 1.0]
    found = cut(costs, pieces)
    assert [at for a, b in found for at in range(a, b)] == list(range(6))
    assert len(found) == min(pieces, 6) or pieces == 20


@dataclass
class Interrupted:
    """Computes parts in this process, and is interrupted after some."""

    after: int
    most: int = 1
    where: str = "here"
    computed: list[str] = field(default_factory=list)

    def count(self) -> int:
        return self.most

    def map(
        self, shared: Any, parts: Sequence[Part], progress: Progress
    ) -> Iterator[tuple[Part, Any]]:
        for part, result in Here().map(shared, parts, progress):
            if len(self.computed) == self.after:
                raise KeyboardInterrupt
            self.computed.append(part.name)
            yield part, result


def double(shared: int, argument: int, device: str, progress: Progress) -> dict[str, int]:
    return {"value": shared * argument}


def phase(path: Path) -> Phase:
    parts = [Part(f"{path.stem} {i}", double, i, 1.0) for i in range(4)]

    def finish(found: list[dict[str, int]]) -> None:
        write_sealed(path, {"values": [one["value"] for one in found]}, path.stem)

    return Phase(Wanted(path, "doubles"), "doubling", parts, finish)


@pytest.mark.parametrize("damage", [False, True])
def test_a_phase_goes_on_behind_its_last_part(tmp_path: Path, damage: bool) -> None:
    path = tmp_path / "cache" / "doubles_0.json"
    first, second = Interrupted(after=2), Interrupted(after=9)
    with pytest.raises(KeyboardInterrupt):
        ensure([phase(path)], 2, first, Results(tmp_path))
    assert not path.exists()
    kept = sorted((tmp_path / "cache" / "parts").iterdir())
    assert len(kept) == 2
    if damage:
        kept[0].write_text(kept[0].read_text().replace("2", "3", 1))
    ensure([phase(path)], 2, second, Results(tmp_path))
    assert len(second.computed) == (3 if damage else 2)
    assert read_sealed(path, path.stem) == {"values": [0, 2, 4, 6]}
    assert [one.name for one in (tmp_path / "cache").iterdir()] == [path.name]


def test_several_workers_compute_all_phases_together(tmp_path: Path) -> None:
    workers = Interrupted(after=9, most=2)
    paths = [tmp_path / "cache" / f"doubles_{i}.json" for i in range(2)]
    ensure([phase(path) for path in paths], 3, workers, Results(tmp_path))
    assert len(workers.computed) == 8
    assert [read_sealed(path, path.stem)["values"] for path in paths] == [[0, 3, 6, 9]] * 2


def test_parts_of_measuring_cost_about_the_same(common: Common) -> None:
    every = [layer for layer in common.candidates.layers if layer.grouped]
    parts = phases.measuring("harm", common, Interrupted(after=0), 30.0, every)
    assert sum(part.passes for part in parts) == pytest.approx(30.0)
    assert max(part.passes for part in parts) < 3 * min(part.passes for part in parts)
