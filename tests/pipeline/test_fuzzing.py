"""Readers of files from outside, on content that hypothesis makes: no crash, no hang.

Each reader gives a value or its own error, in one printable message. tests/fuzzing.py says how many
are tried.
"""

import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, seed
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from torch import nn

from igq import WeightsError
from igq.vit.reading import read_checkpoint
from pipeline.data import ImageSource, Preprocessing, open_source
from pipeline.data.classes import read_classes
from pipeline.errors import DataError
from search_spaces import SearchSpaceError, load, parse_budget
from tests.fuzzing import DAMAGE, FUZZ, SEED, VALUES, damaged, refusal

KEYS = st.sampled_from(
    [
        "model",
        "weight_bits",
        "activation_bits",
        "num_groups",
        "budget",
        "tied",
        "max_size",
        "trials",
    ]
)


@pytest.mark.slow
@seed(SEED + 1)
@FUZZ
@given(content=st.dictionaries(KEYS, VALUES, max_size=8))
def test_spaces(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    base = {"model": "vit_tiny_patch16_224", "weight_bits": 4, "activation_bits": 4}
    base |= {"num_groups": [1, 2], "budget": {"uniform": 2}}
    path.write_text(yaml.safe_dump(base | content), encoding="utf-8")
    message = refusal(lambda: load(path), SearchSpaceError)
    assert message is None or message.startswith("space.yaml is not a search space:")


@seed(SEED + 2)
@FUZZ
@given(content=st.binary(max_size=200) | st.text(max_size=99).map(str.encode))
def test_text_files(content: bytes, tmp_path: Path) -> None:
    for name in ("space.yaml", "classes.json", "classes.csv", "classes.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        read = load if name == "space.yaml" else read_classes
        assert refusal(partial(read, str(path)), SearchSpaceError, DataError) != ""


@seed(SEED + 3)
@FUZZ
@given(text=st.text(max_size=30) | st.from_regex(r"(uniform|bops|overhead):.*", fullmatch=True))
def test_budgets(text: str) -> None:
    message = refusal(lambda: parse_budget(text), SearchSpaceError)
    assert message is None or message.startswith("`budget")


@seed(SEED + 4)
@FUZZ
@given(form=st.sampled_from(["zip", "pickle", "safetensors"]), **DAMAGE)
def test_checkpoints(form: str, cut: int, changes: list[tuple[int, int]], tmp_path: Path) -> None:
    tensors = {"head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}
    buffer = io.BytesIO()
    if form == "safetensors":
        buffer.write(save(tensors))
    elif form == "zip":
        torch.save({"model": tensors, "epoch": 3}, buffer)
    else:
        buffer.write(pickle.dumps({"model": {"a": [1, 2.5, None]}}, protocol=2))
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    path.write_bytes(damaged(buffer.getvalue(), cut, changes))
    message = refusal(lambda: read_checkpoint(path), WeightsError)
    assert message is None or message.isprintable()


@pytest.fixture
def preprocessing(model: nn.Module) -> Preprocessing:
    return Preprocessing.of(model)


@pytest.mark.slow
@seed(SEED + 5)
@FUZZ
@given(ending=st.sampled_from(["png", "jpg", "gif", "tif", "bmp", "webp", "tga"]), **DAMAGE)
def test_images(
    ending: str,
    cut: int,
    changes: list[tuple[int, int]],
    tmp_path: Path,
    preprocessing: Preprocessing,
) -> None:
    buffer = io.BytesIO()
    kinds = {"jpg": "JPEG", "tif": "TIFF"}
    Image.new("RGB", (9, 7), (1, 2, 3)).save(buffer, kinds.get(ending, ending.upper()))
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / f"a.{ending}").write_bytes(damaged(buffer.getvalue(), cut, changes))
    source: ImageSource = open_source(str(folder), preprocessing)
    message = refusal(lambda: source.read(0)[0].reshape(1, 8, 8), DataError)
    assert message is None or f"a.{ending} is not: " in message
