"""Programs of torch.export: what is refused before torch reads it."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import igq
from igq.formats.drafts import MANIFEST, seal
from igq.formats.pt2 import FILE, read_pt2, write_pt2
from igq.formats.pt2.archive import CONFIGS, CONSTANTS, EXAMPLES, GRAPH, WEIGHTS

Members = dict[str, bytes]
Content = dict[str, Any]


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.fixture(scope="module")
def written(quantized: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pt2(quantized, tmp_path_factory.mktemp("pt2") / "model", {"seed": 3})


@pytest.fixture
def forge(written: Path, tmp_path: Path) -> Callable[[Callable[[Members], None]], Path]:
    """Give the function that changes an archive's members and seals it again, as a forger would."""

    def forged(change: Callable[[Members], None]) -> Path:
        with zipfile.ZipFile(written / FILE) as archive:
            members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        change(members)
        folder = tmp_path / "forged"
        folder.mkdir()
        for file in written.iterdir():
            if file.name not in (FILE, MANIFEST):
                (folder / file.name).write_bytes(file.read_bytes())
        with zipfile.ZipFile(folder / FILE, "w") as archive:
            for name, content in members.items():
                archive.writestr(f"model/{name}", content)
        seal(folder, "pt2")
        return folder

    return forged


def edit(member: str, change: Callable[[Content], None]) -> Callable[[Members], None]:
    """Return the change of an archive that changes the JSON of one member."""

    def changed(members: Members) -> None:
        content = json.loads(members[member])
        change(content)
        members[member] = json.dumps(content).encode()

    return changed


def first_weight(content: Content) -> Content:
    entry: Content = next(iter(content["config"].values()))
    return entry


def call(target: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    return change


def name_of_input(name: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = name

    return change


def expression(text: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        (size,) = content["graph_module"]["graph"]["sym_int_values"].values()
        size["as_expr"]["expr_str"] = text

    return change


def spec(text: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text

    return change


ENUM = '[1, {"type": null, "context": {"__enum__": true, "fqn": "os:path"}, "children_spec": []}]'
ATTACKS: dict[str, tuple[Callable[[Members], None], str]] = {
    "a library": (
        lambda m: m.update({"data/aotinductor/model/a.so": b"\x7fELF"}),
        "alone, but has",
    ),
    "weights of old": (lambda m: m.update({f"{WEIGHTS}model.pt": b"\x80"}), "alone, but has"),
    "an object": (lambda m: m.update({f"{CONSTANTS}custom_obj_0": b"\x80"}), "alone, but has"),
    "pickled weights": (
        edit(CONFIGS[WEIGHTS], lambda c: first_weight(c).update(use_pickle=True)),
        "must be a tensor in bytes, but is not",
    ),
    "absurd weights": (
        edit(
            CONFIGS[WEIGHTS],
            lambda c: first_weight(c)["tensor_meta"].update(sizes=[{"as_int": 10**12}]),
        ),
        "must have the bytes of its shape",
    ),
    "a command": (edit(GRAPH, call("torch.os.system")), "but has target 'torch.os.system'"),
    "a file": (edit(GRAPH, call("torch.ops.aten.from_file.default")), "but has target"),
    "a name": (edit(GRAPH, name_of_input("x=print(1)")), "but has name 'x=print"),
    "an expression": (edit(GRAPH, expression("print('s77')")), "but has expr_str"),
    "an attribute": (edit(GRAPH, expression("Symbol.mro()")), "but has expr_str"),
    "an import": (edit(GRAPH, spec(ENUM)), "but has in_spec"),
    "a guard": (edit(GRAPH, lambda c: c.update(guards_code=["print(1)"])), "no code of guards"),
    "no graph": (lambda m: m.update({GRAPH: b"{"}), "must be JSON"),
}


class TestRead:
    @torch.inference_mode()
    def test_it_takes_batches_of_any_size(
        self, written: Path, quantized: nn.Module, images: Tensor
    ) -> None:
        model, deployed = read_pt2(written), igq.deploy(quantized)
        for count in (1, 2, 5):
            assert torch.equal(model(images[:count]), deployed(images[:count]))

    @torch.inference_mode()
    def test_what_is_sealed_again_unchanged_is_read(
        self, forge: Callable[..., Path], written: Path, images: Tensor
    ) -> None:
        """So that what is refused below is refused for its change."""
        assert torch.equal(read_pt2(forge(lambda m: None))(images), read_pt2(written)(images))

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_code_is_refused(self, forge: Callable[..., Path], attack: str) -> None:
        change, reason = ATTACKS[attack]
        with pytest.raises(igq.ArtifactError, match=reason):
            read_pt2(forge(change))

    def test_a_pickle_is_not_unpickled(self, forge: Callable[..., Path], tmp_path: Path) -> None:
        """torch.export.load, which this test shows to run it, is never reached."""
        held = io.BytesIO()
        torch.save((Attack(tmp_path / "ran"),), held, pickle_module=pickle)
        folder = forge(lambda m: m.update({EXAMPLES: held.getvalue()}))
        with pytest.raises(igq.ArtifactError, match="must hold no examples, which are pickles"):
            read_pt2(folder)
        assert not (tmp_path / "ran").exists()
        torch.export.load(folder / FILE)
        assert (tmp_path / "ran").exists()

    def test_a_folder_of_another_format_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        seal(tmp_path / "folder", "onnx")
        with pytest.raises(igq.ArtifactError, match="must be of the format pt2, but is onnx"):
            read_pt2(tmp_path / "folder")


class TestWrite:
    def test_the_file_has_settings_and_notes_and_no_paths(self, written: Path) -> None:
        with zipfile.ZipFile(written / FILE) as archive:
            held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        assert json.loads(held["extra/igq.notes"]) == {"seed": 3}
        layer = json.loads(held["extra/igq.layers"])["blocks.0.attn.qkv"]
        assert (layer["weight_bits"], layer["num_groups"]) == (4, 2)
        assert str(Path(igq.__file__).parent).encode() not in held[GRAPH]

    def test_a_model_that_is_not_quantized_is_refused(self, vit: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(igq.ArtifactError, match="only a quantized model can be written"):
            write_pt2(vit, tmp_path / "model")
