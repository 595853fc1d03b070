"""A quantized model on disk."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import igq
from igq import ArtifactError, GroupQuantizer, InvalidArgumentError, UnsupportedModelError
from igq.formats import FORMATS, format_named
from igq.formats.integrity import file_entry, sealed
from igq.formats.native import SCHEMA
from igq.quantized import quantized_weights, quantizers
from tests.makers import FITTED, counts_of

Make = Callable[..., nn.Module]
FILES = ["README.md", "allocation.json", "manifest.json", "model.safetensors"]
GOLDEN = sorted((Path(__file__).resolve().parents[2] / "golden").glob("artifact_schema_*"))


@pytest.fixture
def saved(quantized: nn.Module, tmp_path: Path) -> Path:
    return igq.save(quantized, tmp_path / "artifact", notes={"seed": 3})


def quantize_simply(vit: nn.Module, images: Tensor, bits: int = 4) -> nn.Module:
    candidates = igq.fit(igq.observe(vit, images, FITTED), (2,), bits)
    return igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 2)), bits)


def seal(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with the digests of the files as they are, as an attacker could."""
    manifest.pop("digest", None)
    manifest["files"] = {name: file_entry(path / name) for name in manifest["files"]}
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest on purpose: the digests fit it again."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    seal(path, manifest)


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors on purpose: the digests fit them again."""
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")
    seal(path, json.loads((path / "manifest.json").read_text()))


class TestRoundTrip:
    def test_predictions_are_the_same_bit_for_bit(
        self, quantized: nn.Module, saved: Path, images: Tensor
    ) -> None:
        assert torch.equal(igq.load(saved).model(images), quantized(images))

    def test_the_allocation_and_the_notes_come_back(self, vit: nn.Module, saved: Path) -> None:
        artifact = igq.load(saved)
        assert artifact.allocation == igq.uniform(igq.layers(vit), 2)
        assert artifact.notes == {"seed": 3}

    def test_so_do_codes_and_quantizers(self, quantized: nn.Module, saved: Path) -> None:
        model = igq.load(saved).model
        weights = quantized_weights(model)
        for name, weight in quantized_weights(quantized).items():
            assert torch.equal(weights[name].codes, weight.codes)
            assert weights[name].bits == weight.bits
        fitted = quantizers(model)
        for name, quantizer in quantizers(quantized).items():
            read = fitted[name]
            assert (read.bits, read.grouping) == (quantizer.bits, quantizer.grouping)
            if isinstance(quantizer, GroupQuantizer):
                assert isinstance(read, GroupQuantizer)
                assert torch.equal(fitted[name].lower, quantizer.lower)
                assert torch.equal(fitted[name].upper, quantizer.upper)

    def test_a_model_read_back_can_be_saved_again(
        self, saved: Path, tmp_path: Path, images: Tensor
    ) -> None:
        again = igq.save(igq.load(saved).model, tmp_path / "again")
        assert torch.equal(igq.load(again).model(images), igq.load(saved).model(images))

    @pytest.mark.parametrize("bits", [2, 8])
    @pytest.mark.parametrize(
        "arguments",
        [{}, {"qk_norm": True, "init_values": 0.1}, {"global_pool": "avg", "reg_tokens": 2}],
        ids=["plain", "norm-and-scale", "pool-and-registers"],
    )
    def test_variants_and_bits_survive(
        self,
        make_vit: Make,
        images: Tensor,
        tmp_path: Path,
        arguments: dict[str, object],
        bits: int,
    ) -> None:
        quantized = quantize_simply(make_vit(**arguments), images, bits)
        path = igq.save(quantized, tmp_path / "artifact")
        assert torch.equal(igq.load(path).model(images), quantized(images))

    def test_a_bf16_model_comes_back_in_bf16(
        self, make_vit: Make, images: Tensor, tmp_path: Path
    ) -> None:
        images = images.bfloat16()
        quantized = quantize_simply(make_vit().bfloat16(), images)
        outputs = igq.load(igq.save(quantized, tmp_path / "artifact")).model(images)
        assert outputs.dtype == torch.bfloat16
        assert torch.equal(outputs, quantized(images))

    def test_a_model_on_a_gpu_can_be_saved(
        self, make_vit: Make, images: Tensor, tmp_path: Path, device: torch.device
    ) -> None:
        quantized = quantize_simply(make_vit(), images).to(device)
        model = igq.load(igq.save(quantized, tmp_path / "artifact")).model
        assert torch.equal(model.to(device)(images.to(device)), quantized(images.to(device)))

    def test_nothing_in_it_is_code(self, saved: Path) -> None:
        assert sorted(file.name for file in saved.iterdir()) == FILES


class TestSaveRefuses:
    def test_a_path_that_exists(self, quantized: nn.Module, saved: Path) -> None:
        before = (saved / "manifest.json").read_bytes()
        with pytest.raises(ArtifactError) as raised:
            igq.save(quantized, saved)
        assert str(raised.value) == f"`path` must not exist yet, but {saved} does."
        assert (saved / "manifest.json").read_bytes() == before

    def test_a_model_that_is_not_quantized(self, vit: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError) as raised:
            igq.save(vit, tmp_path / "artifact")
        assert str(raised.value) == (
            "only a quantized model can be saved; make one with igq.quantize."
        )
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_written(self, quantized: nn.Module, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ArtifactError, match=f"^{tmp_path / 'file'} must be writable, but is"):
            igq.save(quantized, tmp_path / "file" / "artifact")

    def test_notes_that_are_not_json(self, quantized: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"^`notes` must be JSON, but are not: "):
            igq.save(quantized, tmp_path / "artifact", notes={"path": Path()})
        assert not list(tmp_path.iterdir())

    def test_a_model_that_does_not_know_its_name(
        self, make_vit: Make, images: Tensor, tmp_path: Path
    ) -> None:
        quantized = quantize_simply(make_vit(), images)
        quantized.pretrained_cfg = {}
        with pytest.raises(UnsupportedModelError, match=r"must be made by timm\.create_model"):
            igq.save(quantized, tmp_path / "artifact")

    @pytest.mark.parametrize(
        "change",
        [
            lambda model: setattr(model.blocks[0].mlp, "act", nn.ReLU()),
            lambda model: setattr(model, "pool_include_prefix", True),
        ],
        ids=["another-module", "another-setting"],
    )
    def test_a_model_that_timm_would_make_otherwise(
        self,
        make_vit: Make,
        images: Tensor,
        tmp_path: Path,
        change: Callable[[nn.Module], None],
    ) -> None:
        vit = make_vit(global_pool="avg")
        change(vit)
        with pytest.raises(ArtifactError, match=r"^the model must be what timm makes"):
            igq.save(quantize_simply(vit, images), tmp_path / "artifact")
        assert not list(tmp_path.iterdir())


class TestInterruptedWrite:
    @pytest.mark.parametrize(
        ("error", "raised"),
        [
            (OSError("no space left on device"), ArtifactError),
            (KeyboardInterrupt(), KeyboardInterrupt),
        ],
        ids=["disk-full", "ctrl-c"],
    )
    @pytest.mark.parametrize(
        "step", ["igq.formats.native.writing.save_file", "igq.formats.drafts.os.replace"]
    )
    def test_it_leaves_nothing(
        self,
        quantized: nn.Module,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        error: BaseException,
        raised: type[BaseException],
    ) -> None:
        def fail(*args: object) -> None:
            raise error

        monkeypatch.setattr(step, fail)
        with pytest.raises(raised):
            igq.save(quantized, tmp_path / "artifact")
        assert not list(tmp_path.iterdir())

    def test_the_folder_appears_with_all_that_is_in_it(
        self, quantized: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "artifact"
        replace = os.replace

        def look_then_replace(draft: Path, target: Path) -> None:
            assert not path.exists()
            assert sorted(os.listdir(draft)) == FILES
            replace(draft, target)

        monkeypatch.setattr("igq.formats.drafts.os.replace", look_then_replace)
        igq.save(quantized, path)
        assert path.is_dir()


def set_in(*keys: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return change


def to(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({name: value})


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "null", '"text"', "\udcff", '{"format": "igq-artifact", "schema": 1}'],
        ids=["empty", "cut", "list", "null", "string", "not-utf8", "without-model"],
    )
    def test_a_manifest_that_is_not_one(self, saved: Path, content: str) -> None:
        (saved / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(ArtifactError, match=f"^{saved} "):
            igq.load(saved)

    @pytest.mark.parametrize(
        "change",
        [
            set_in("versions", "igq", value=None),
            set_in("model", value="vit"),
            set_in("model", "name", value="resnet18"),
            set_in("model", "name", value="no_such_model"),
            set_in("model", "arguments", "depth", value=1),
            set_in("model", "arguments", "embed_dim", value=24),
            set_in("model", "arguments", "checkpoint_path", value="/etc/passwd"),
            set_in("activations", "head", "bits", value=32),
            set_in("activations", "head", "slices", value="columns"),
            set_in("activations", "head", "slices", value=None),
            set_in("activations", "head", "bounds", value="guessed"),
            set_in("activations", "head", "num_groups", value=0),
            set_in("activations", "head", "num_groups", value=2.5),
            set_in("activations", "patch_embed.proj", "slices", value="token groups"),
            set_in("rotated", value=["neck"]),
            set_in("rotated", value=["patch_embed.proj"]),
            set_in("activations", "neck", value={"bits": 4, "slices": "heads", "bounds": "own"}),
            set_in("weights", "head", "bits", value=None),
            set_in("weights", "neck", value={"bits": 4}),
            lambda manifest: manifest["weights"].pop("head"),
            lambda manifest: manifest.pop("notes"),
        ],
        ids=[
            "version-is-nothing",
            "model-is-text",
            "another-model",
            "unknown-model",
            "too-shallow",
            "too-wide",
            "asks-for-a-file",
            "activation-bits",
            "slices",
            "no-slices",
            "bounds",
            "no-groups",
            "half-a-group",
            "fitted-bounds-of-tokens",
            "unknown-rotated",
            "rotated-convolution",
            "unknown-activation",
            "weight-bits",
            "unknown-weight",
            "missing-weight",
            "missing-notes",
        ],
    )
    def test_a_manifest_that_does_not_fit(self, saved: Path, change: Callable[..., object]) -> None:
        edit_manifest(saved, change)
        with pytest.raises(ArtifactError, match=f"^{saved} could not be read as an artifact: "):
            igq.load(saved)

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: tensors.pop("weights.head.codes"),
            lambda tensors: tensors.pop("activations.patch_embed.proj.lower"),
            lambda tensors: tensors.pop("parameters.norm.bias"),
            lambda tensors: tensors.clear(),
            to("parameters.neck.bias", torch.zeros(3)),
            to("parameters.norm.bias", torch.zeros(3)),
            to("parameters.norm.bias", torch.full((12,), float("nan"))),
            to("weights.head.codes", torch.zeros(10, 11, dtype=torch.uint8)),
            to("weights.head.scale", torch.ones(1)),
            to("weights.head.scale", torch.full((10,), float("inf"))),
            to("activations.blocks.0.mlp.fc1.upper", torch.ones(3)),
            to("activations.blocks.0.mlp.fc1.upper", torch.full((2,), float("nan"))),
        ],
        ids=[
            "missing-codes",
            "missing-bound",
            "missing-parameter",
            "none",
            "unknown-parameter",
            "shape-of-parameter",
            "nan-in-parameter",
            "shape-of-codes",
            "shape-of-scale",
            "infinite-scale",
            "more-upper-than-lower",
            "nan-in-bound",
        ],
    )
    def test_tensors_that_do_not_fit(self, saved: Path, change: Callable[..., object]) -> None:
        edit_tensors(saved, change)
        with pytest.raises(ArtifactError, match=f"^{saved} could not be read as an artifact: "):
            igq.load(saved)

    @pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
    def test_a_missing_file(self, saved: Path, name: str) -> None:
        (saved / name).unlink()
        with pytest.raises(ArtifactError, match=f"{name}: there is no such file$"):
            igq.load(saved)

    @pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
    def test_a_truncated_file(self, saved: Path, name: str) -> None:
        file = saved / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ArtifactError, match=f"could not be read as an artifact: {name}: "):
            igq.load(saved)

    def test_a_folder_of_something_else(self, saved: Path) -> None:
        edit_manifest(saved, set_in("format", value="cookbook"))
        with pytest.raises(ArtifactError) as raised:
            igq.load(saved)
        assert str(raised.value) == (
            f"{saved} could not be read as an artifact: manifest.json: `format` must be "
            "igq-artifact, but is 'cookbook'"
        )

    @pytest.mark.parametrize("schema", [0, 6, "1", True], ids=repr)
    def test_a_schema_of_another_time_and_what_to_do(self, saved: Path, schema: object) -> None:
        edit_manifest(saved, set_in("schema", value=schema))
        with pytest.raises(ArtifactError) as raised:
            igq.load(saved)
        assert str(raised.value) == (
            f"{saved} could not be read as an artifact: manifest.json: `schema` must be 1 or 2 or "
            f"3 or 4 or 5, but is {schema!r}; use the version of igq-vit that wrote it"
        )


class TestImpossibleValues:
    """Refused by file and reason, though the digests were computed again."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (set_in("model", "arguments", "embed_dim", value=0), "arguments.embed_dim` must be"),
            (set_in("model", "arguments", "num_heads", value=0), "arguments.num_heads` must be"),
            (set_in("model", "arguments", "patch_size", value=[0, 2]), "patch_size` must be"),
            (set_in("model", "arguments", "img_size", value=[10**9] * 2), "img_size` must be"),
            (set_in("model", "arguments", "depth", value=True), "arguments.depth` must be"),
            (set_in("activations", value={}), "`activations` must name each layer of the model"),
            (set_in("rotated", value=["blocks.0.mlp.fc1"]), "`rotated` must be the layers that"),
            (set_in("notes", "preprocessing", value="bicubic"), "`notes.preprocessing` must hold"),
            (set_in("notes", "classes", value=["cat"]), "`notes.classes` must be the names of 10"),
            (set_in("files", value={}), "`files` must name model.safetensors"),
            (set_in("files", "../README.md", value={}), "`files` must name model.safetensors"),
        ],
        ids=lambda value: None if callable(value) else value[:30],
    )
    def test_of_the_manifest(self, saved: Path, change: Callable[..., object], reason: str) -> None:
        manifest = json.loads((saved / "manifest.json").read_text())
        change(manifest)
        manifest.pop("digest")
        (saved / "manifest.json").write_text(json.dumps(sealed(manifest)))
        with pytest.raises(ArtifactError, match=f"artifact: manifest.json: .*{re.escape(reason)}"):
            igq.load(saved)

    @pytest.mark.parametrize("value", [1, 3, 48, 1025, 10**30, True, None, "2"], ids=repr)
    def test_of_a_number_of_groups(self, saved: Path, value: object) -> None:
        edit_manifest(saved, set_in("activations", "blocks.0.mlp.fc1", "num_groups", value=value))
        with pytest.raises(ArtifactError, match=r"artifact: (manifest|allocation).json: "):
            igq.load(saved)

    def test_of_bounds(self, saved: Path) -> None:
        name = "activations.blocks.0.mlp.fc1"
        for upper, rule in ((-1e6, "have lower bounds below upper ones"), (1e38, "be finite")):
            edit_tensors(saved, to(f"{name}.upper", torch.full((2,), upper)))
            show_again(saved)
            with pytest.raises(ArtifactError, match=f"model.safetensors: {name}.* must {rule}"):
                igq.load(saved)

    def test_of_a_link_to_another_file(self, saved: Path, tmp_path: Path) -> None:
        (saved / "README.md").rename(tmp_path / "README.md")
        (saved / "README.md").symlink_to(tmp_path / "README.md")
        with pytest.raises(ArtifactError, match=r"README\.md: it must be a file of the folder"):
            igq.load(saved)


def show_again(path: Path) -> None:
    """Have allocation.json name the tensors as they are now."""
    content = json.loads((path / "allocation.json").read_text())
    content["model"]["tensors"] = file_entry(path / "model.safetensors")["sha256"]
    (path / "allocation.json").write_text(json.dumps(content))
    seal(path, json.loads((path / "manifest.json").read_text()))


class TestGolden:
    """Artifacts of every released schema, made by tests/golden/make_artifact.py."""

    def test_there_is_one_of_the_current_schema(self) -> None:
        assert f"artifact_schema_{SCHEMA}" in [path.name for path in GOLDEN]

    @pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
    def test_it_still_loads_and_predicts_the_same(self, path: Path) -> None:
        expected = load_file(path / "expected.safetensors")
        artifact = igq.load(path)
        outputs = artifact.model(expected["images"])
        torch.testing.assert_close(outputs, expected["logits"], atol=1e-4, rtol=1e-4)
        assert set(counts_of(artifact.allocation).values()) == {1, 2, 4}
        assert artifact.notes == {"made_by": "tests/golden/make_artifact.py"}


class TestFormats:
    def test_the_native_one_is_what_save_writes(
        self, quantized: nn.Module, tmp_path: Path, images: Tensor
    ) -> None:
        path = format_named("native")(quantized, tmp_path / "artifact", {"seed": 3})
        assert torch.equal(igq.load(path).model(images), quantized(images))

    def test_an_unknown_format_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            format_named("tape")
        known = ", ".join(FORMATS)
        assert str(raised.value) == f"`format` must be one of {known}, but got 'tape'."

    @pytest.mark.parametrize("scheme", [igq.Scheme.PAPER, igq.Scheme.BEST], ids=["paper", "best"])
    def test_the_limit_of_many_groups_can_be_kept_too(
        self, make_vit: Make, images: Tensor, tmp_path: Path, scheme: igq.Scheme
    ) -> None:
        vit = make_vit()
        candidates = igq.fit(igq.observe(vit, images, scheme), (2,), bits=4)
        quantized = igq.quantize(vit, candidates.upper_bound(), weight_bits=4)
        again = igq.load(igq.save(quantized, tmp_path / "artifact")).model
        assert torch.equal(again(images), quantized(images))
