"""Reading the weights in the checkpoints of training scripts, and nothing else."""

import argparse
import json
import re
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from igq import WeightsError
from igq.vit import create
from igq.vit.reading import KEYS, read_checkpoint
from tests.tiny import TINY

NAME = "vit_tiny_patch16_224"
FIRST, SECOND = {"head.bias": torch.ones(1)}, {"head.bias": torch.zeros(1)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pth"


def read(file: Path, content: Any, key: str | None = None) -> Mapping[str, Tensor]:
    torch.save(content, file)
    return read_checkpoint(file, key).tensors


class TestWhatTrainingScriptsSave:
    def test_timm_s_train_py(self, file: Path) -> None:
        content = {
            "epoch": 3,
            "arch": NAME,
            "state_dict": FIRST,
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
            "version": 2,
            "args": argparse.Namespace(lr=np.float32(0.1), seed=np.int64(1), amp=np.bool_(True)),
            "amp_scaler": {"scale": 65536.0},
            "metric": np.float64(80.1),
            "state_dict_ema": SECOND,
        }
        assert read(file, content) == SECOND
        assert read(file, content, "state_dict") == FIRST

    def test_deit_s_main_py(self, file: Path) -> None:
        content = {
            "model": FIRST,
            "optimizer": {},
            "lr_scheduler": {"base": np.arange(3.0)},
            "epoch": 299,
            "model_ema": SECOND,
            "scaler": {},
            "args": argparse.Namespace(output_dir=Path("out"), drop=None, betas=(0.9, 0.99)),
        }
        assert read(file, content) == SECOND
        assert read(file, content, "model") == FIRST

    def test_plain_values_of_other_scripts(self, file: Path) -> None:
        content = {
            "state_dict": OrderedDict(FIRST),
            "milestones": Counter({30: 1}),
            "history": defaultdict(list, {"loss": [0.5]}),
            "args": types.SimpleNamespace(lr=0.1, size=torch.Size([2])),
        }
        assert read(file, content) == FIRST

    @pytest.mark.parametrize("key", KEYS)
    def test_each_name_of_a_set_is_known(self, file: Path, key: str) -> None:
        assert read(file, {"epoch": 1, key: FIRST}) == FIRST

    @pytest.mark.parametrize("key", ["backbone", "best"])
    def test_a_name_that_nobody_knows_is_found_where_it_is_the_only_one(
        self, file: Path, key: str
    ) -> None:
        assert read(file, {"epoch": 1, key: FIRST}) == FIRST

    def test_sets_lie_in_sets(self, file: Path) -> None:
        assert read(file, {"model_ema": {"module": FIRST, "decay": 0.99}}) == FIRST

    def test_older_numpy_s_names_are_read(self, file: Path) -> None:
        torch.save({"model": FIRST, "acc": np.float64(0.5)}, file)
        assert read_checkpoint(file).tensors == FIRST


class TestKeys:
    def test_the_choice_is_told(self, vit: nn.Module, file: Path) -> None:
        other = {name: tensor + 1 for name, tensor in vit.state_dict().items()}
        torch.save({"state_dict": vit.state_dict(), "state_dict_ema": other}, file)
        told: list[str] = []
        averaged = create(NAME, TINY, file, tell=told.append)
        assert told == [
            f"{file}: state_dict_ema are the weights that are read; --checkpoint-key takes "
            "others: state_dict."
        ]
        assert torch.equal(averaged.state_dict()["norm.bias"], other["norm.bias"])
        told.clear()
        plain = create(NAME, TINY, file, "state_dict", told.append)
        assert torch.equal(plain.state_dict()["norm.bias"], vit.state_dict()["norm.bias"])
        assert told == []

    def test_a_key_that_is_not_there_is_refused_with_those_that_are(self, file: Path) -> None:
        torch.save({"model": FIRST, "model_ema": SECOND}, file)
        with pytest.raises(WeightsError) as raised:
            read_checkpoint(file, "ema")
        assert str(raised.value) == (
            f"`checkpoint_key` must be one of model_ema, model in {file}, but got ema."
        )


class TestClasses:
    @pytest.mark.parametrize("key", ["class_to_idx", "classes"])
    def test_the_classes_that_a_checkpoint_names_are_the_model_s(
        self, vit: nn.Module, file: Path, key: str
    ) -> None:
        names = [*"jihgfedcba"]
        classes = dict(zip(names, range(10), strict=True)) if key == "class_to_idx" else names
        torch.save({"model": vit.state_dict(), key: classes}, file)
        assert create(NAME, TINY, file).pretrained_cfg["label_names"] == classes

    def test_the_folder_of_a_hugging_face_model_brings_its_own(
        self, vit: nn.Module, tmp_path: Path
    ) -> None:
        save_file(vit.state_dict(), tmp_path / "model.safetensors")
        labels = {str(number): f"class {number}" for number in range(10)}
        (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
        assert create(NAME, TINY, tmp_path).pretrained_cfg["label_names"] == labels

    def test_classes_of_another_number_are_not(self, vit: nn.Module, file: Path) -> None:
        torch.save({"model": vit.state_dict(), "classes": ["cat", "dog"]}, file)
        assert not create(NAME, TINY, file).pretrained_cfg.get("label_names")


class TestRefusals:
    def test_a_whole_model_is_named(self, file: Path) -> None:
        torch.save(timm.create_model(NAME, **TINY), file)
        with pytest.raises(WeightsError) as raised:
            read_checkpoint(file)
        message = str(raised.value)
        assert message.startswith(f"{file} must hold tensors, and nothing that runs code, but has ")
        assert message.endswith(" more; save model.state_dict() alone.")
        assert message.isprintable()

    @pytest.mark.parametrize("content", [b"\x80\x04.", b"\x80\x02]q\x00.", b"\x80", b"PK\x03\x04"])
    def test_a_damaged_file_is_one_printable_line(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=f"^{file} ") as raised:
            read_checkpoint(file)
        assert str(raised.value).isprintable()

    def test_a_name_that_a_terminal_would_act_on(self, vit: nn.Module, file: Path) -> None:
        torch.save({"model": vit.state_dict(), "\x1b[2J": vit.state_dict()}, file)
        with pytest.raises(WeightsError, match=r"^`checkpoint_key` must be one of ") as raised:
            read_checkpoint(file, "ema")
        assert str(raised.value).isprintable()
        torch.save({"parser": argparse.ArgumentParser}, file)
        file.write_bytes(file.read_bytes().replace(b"argparse", b"arg\x1barse"))
        with pytest.raises(WeightsError, match="must hold tensors") as raised:
            read_checkpoint(file)
        assert str(raised.value).isprintable()

    def test_a_folder_without_weights(self, tmp_path: Path) -> None:
        said = (
            f"{tmp_path} could not be read as weights: a folder must hold model.safetensors, "
            "pytorch_model.bin or open_clip_model.safetensors, but "
        )
        with pytest.raises(WeightsError, match=f"^{re.escape(said)}it has none.$"):
            read_checkpoint(tmp_path)
        (tmp_path / "model.safetensors.index.json").write_text("{}")
        divided = "its weights are divided among files; save them as one."
        with pytest.raises(WeightsError, match=f"^{re.escape(said + divided)}$"):
            read_checkpoint(tmp_path)
