"""A quantized model in standard ONNX operators."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

import igq  # noqa: E402
from igq import ArtifactError, Rotation, Scheme, UnsupportedModelError  # noqa: E402
from igq.formats import format_named, verify  # noqa: E402
from igq.formats.onnx import standard, verification, write_onnx  # noqa: E402
from igq.formats.onnx.plain import plain_graph  # noqa: E402
from igq.quantized import quantized_weights  # noqa: E402
from tests.igq.variants import FAST, SUPPORTED, make_model, make_noise  # noqa: E402
from tests.makers import FITTED  # noqa: E402

Make = Callable[..., nn.Module]
SCHEMES = {"best": Scheme.BEST, "paper": Scheme.PAPER, "fitted": FITTED}
OTHERS = ("swin", "beit", "eva", "dinov3", "rope")
PLAIN = [n for n in SUPPORTED if n == "beit-3" or not n.startswith(OTHERS)]


def quantize(
    model: nn.Module, images: Tensor, scheme: Scheme = Scheme.BEST, bits: int = 8, groups: int = 4
) -> nn.Module:
    candidates = igq.fit(igq.observe(model, images, scheme), (groups,), bits)
    return igq.quantize(model, candidates.select(igq.uniform(candidates.layers, groups)), bits)


def logits_of(path: Path, images: Tensor) -> Tensor:
    session = runtime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def assert_agrees(path: Path, quantized: nn.Module, images: Tensor) -> None:
    """Every logit is within 1e-3 of their range of torch's."""
    with torch.inference_mode():
        expected = quantized(images)
    most = 1e-3 * (expected.max() - expected.min())
    assert (logits_of(path, images) - expected).abs().max() < most


@pytest.fixture
def written(quantized: nn.Module, tmp_path: Path) -> Path:
    return write_onnx(quantized, tmp_path / "vit", notes={"seed": 3, "preprocessing": {"crop": 1}})


class TestAgrees:
    @pytest.mark.parametrize(
        "variant",
        [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in PLAIN],
    )
    @pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
    def test_for_every_way_of_building_a_plain_vit(
        self, variant: str, scheme: Scheme, tmp_path: Path
    ) -> None:
        model = make_model(*SUPPORTED[variant])
        images = make_noise(model)
        quantized = quantize(model, images, scheme)
        assert_agrees(write_onnx(quantized, tmp_path / "vit"), quantized, images)

    @pytest.mark.parametrize("bits", [2, 3, 4, 6])
    def test_for_fewer_bits(
        self, vit: nn.Module, images: Tensor, bits: int, tmp_path: Path
    ) -> None:
        quantized = quantize(vit, images, bits=bits)
        assert_agrees(write_onnx(quantized, tmp_path / "vit"), quantized, images)

    @pytest.mark.parametrize("rotation", Rotation)
    def test_in_a_rotated_basis(
        self, vit: nn.Module, images: Tensor, rotation: Rotation, tmp_path: Path
    ) -> None:
        quantized = quantize(vit, images, replace(Scheme.BEST, rotation=rotation))
        assert_agrees(write_onnx(quantized, tmp_path / "vit"), quantized, images)

    def test_for_settings_that_differ_from_layer_to_layer(
        self, vit: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        """Q and k of other bits are quantized apart; a layer may keep full precision."""
        ranges = igq.observe(vit, images)
        chosen = {}
        for place, layer in enumerate(igq.layers(vit)):
            bits, groups = (4, 8, 6)[place % 3], (1, 2, 3, 5)[place % 4]
            chosen[layer.name] = igq.fit(ranges, (groups,), bits).select(
                igq.uniform(igq.layers(vit), groups)
            )[layer.name]
        del chosen["blocks.1.mlp.fc1"]
        rotated = igq.rotated(vit, Scheme.BEST.rotation)
        quantized = igq.quantize(rotated, chosen, weight_bits=6)
        assert_agrees(write_onnx(quantized, tmp_path / "vit"), quantized, images)

    def test_for_any_number_of_images(
        self, quantized: nn.Module, written: Path, images: Tensor
    ) -> None:
        for count in (1, 5):
            assert_agrees(written, quantized, images[:count])

    def test_with_a_model_that_was_saved_and_loaded(
        self, quantized: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        model = igq.load(igq.save(quantized, tmp_path / "native")).model
        assert_agrees(write_onnx(model, tmp_path / "vit"), quantized, images)


class TestFile:
    def test_holds_standard_operators_of_opset_21_alone(self, written: Path) -> None:
        model = onnx.load(written / "model.onnx")
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 21)]
        assert {node.domain for node in model.graph.node} == {""}
        assert not {"Scatter", "ScatterElements", "ScatterND"} & {
            n.op_type for n in model.graph.node
        }

    def test_passes_the_full_checker_with_every_shape_inferred(self, written: Path) -> None:
        model = onnx.load(written / "model.onnx")
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        known = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output)}
        assert {name for node in model.graph.node for name in node.output} == known
        (output,) = model.graph.output
        batch, classes = output.type.tensor_type.shape.dim
        assert (batch.dim_param, classes.dim_value) == ("batch", 10)

    @pytest.mark.parametrize(("bits", "kind"), [(3, "UINT4"), (4, "UINT4"), (5, "UINT8")])
    def test_weights_are_codes_with_a_scale_for_each_output(
        self, vit: nn.Module, images: Tensor, bits: int, kind: str, tmp_path: Path
    ) -> None:
        quantized = quantize(vit, images, bits=bits)
        model = onnx.load(write_onnx(quantized, tmp_path / "vit") / "model.onnx")
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        for name, held in quantized_weights(quantized).items():
            codes = stored[f"{name}/codes"]
            assert onnx.TensorProto.DataType.Name(codes.data_type) == kind
            assert (
                onnx.numpy_helper.to_array(codes).astype(np.uint8).tolist() == held.codes.tolist()
            )
            (node,) = (n for n in model.graph.node if codes.name in n.input)
            assert (node.op_type, node.attribute[0].name, node.attribute[0].i) == (
                "DequantizeLinear",
                "axis",
                0,
            )

    def test_has_at_most_1300_nodes_for_12_blocks_of_w4a4(self, make_vit: Make) -> None:
        """The blocks of vit_tiny: groups of equal width, qkv and fc1 rotated."""
        sizes = {"embed_dim": 24, "num_heads": 3}
        counts = []
        for depth in (1, 2):
            vit = make_vit(**sizes, depth=depth)
            quantized = quantize(vit, torch.rand(2, 1, 8, 8), bits=4, groups=8)
            counts.append(len(plain_graph(quantized).model().graph.node))
        one, two = counts
        assert one + 11 * (two - one) <= 1300

    def test_carries_settings_and_notes(self, written: Path) -> None:
        metadata = {p.key: p.value for p in onnx.load(written / "model.onnx").metadata_props}
        assert json.loads(metadata["igq.notes"]) == {"seed": 3, "preprocessing": {"crop": 1}}
        layers = json.loads(metadata["igq.layers"])
        assert layers["blocks.0.attn.qkv"] == {
            "weight_bits": 4,
            "activation_bits": 4,
            "groups": "channels",
            "num_groups": 2,
        }
        assert "weight_bits" not in layers["blocks.0.attn.softmax"]

    def test_comes_with_the_preprocessing(
        self, quantized: nn.Module, written: Path, tmp_path: Path
    ) -> None:
        assert json.loads((written / "preprocessing.json").read_text()) == {"crop": 1}
        other = write_onnx(quantized, tmp_path / "other") / "preprocessing.json"
        config = json.loads(other.read_text())["config"]
        assert (config["input_size"], config["mean"]) == ([1, 8, 8], [0.5])

    def test_comes_with_the_names_of_classes_where_they_are_noted(
        self, quantized: nn.Module, written: Path, tmp_path: Path
    ) -> None:
        assert not (written / "classes.json").exists()
        names = [f"class {number}" for number in range(10)]
        named = write_onnx(quantized, tmp_path / "named", notes={"classes": names})
        assert json.loads((named / "classes.json").read_text()) == names
        assert verify(named).kind == "onnx"

    def test_is_the_format_onnx(self) -> None:
        assert format_named("onnx") is write_onnx


class TestRefuses:
    @pytest.fixture(autouse=True)
    def nothing_is_left(self, tmp_path: Path) -> Any:
        yield
        assert not [p for p in tmp_path.iterdir() if p.name not in ("there", "file")]

    def test_a_model_in_full_precision(self, vit: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"only a quantized model.*igq\.quantize"):
            write_onnx(vit, tmp_path / "vit")

    def test_a_path_that_exists(self, quantized: nn.Module, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        with pytest.raises(ArtifactError, match=r"must not exist yet, but .*there does"):
            write_onnx(quantized, tmp_path / "there")

    def test_a_folder_that_is_a_file(self, quantized: nn.Module, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ArtifactError, match="must be writable, but is not"):
            write_onnx(quantized, tmp_path / "file" / "vit")

    def test_notes_that_are_not_json(self, quantized: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="`notes` must be JSON"):
            write_onnx(quantized, tmp_path / "vit", notes={"model": nn.ReLU()})

    @pytest.mark.parametrize("variant", ["swin", "beit", "eva-02"])
    def test_another_family_by_its_name(self, make: Make, variant: str, tmp_path: Path) -> None:
        model = make(variant)
        quantized = quantize(model, make_noise(model))
        with pytest.raises(
            UnsupportedModelError, match=rf"but is a {type(model).__name__}; .*native"
        ):
            write_onnx(quantized, tmp_path / "vit")

    def test_a_part_without_an_onnx_form(
        self, make_vit: Make, images: Tensor, tmp_path: Path
    ) -> None:
        vit: Any = make_vit()
        vit.blocks[1].mlp.act = nn.Mish()
        with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.mlp\.act must be .* a Mish"):
            write_onnx(quantize(vit, images), tmp_path / "vit")

    def test_a_model_in_bf16(self, make_vit: Make, images: Tensor, tmp_path: Path) -> None:
        quantized = quantize(make_vit().bfloat16(), images.bfloat16(), FITTED)
        with pytest.raises(ArtifactError, match=r"float32.*bfloat16; quantize model\.float"):
            write_onnx(quantized, tmp_path / "vit")

    def test_weights_over_2_gb(
        self, quantized: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(standard, "MOST_BYTES", 1000)
        with pytest.raises(ArtifactError, match=r"2 GB, but take .* choose fewer bits"):
            write_onnx(quantized, tmp_path / "vit")

    @pytest.mark.parametrize("damage", [{"zero_point": torch.full((36,), 0.5)}, {"bits": 2}])
    def test_weights_that_are_no_codes(
        self, make_vit: Make, images: Tensor, tmp_path: Path, damage: dict[str, Any]
    ) -> None:
        quantized: Any = quantize(make_vit(), images, bits=4)
        qkv = quantized.blocks[0].attn.qkv
        qkv.quantized_weight = replace(qkv.quantized_weight, **damage)
        with pytest.raises(ArtifactError, match=r"blocks\.0\.attn\.qkv"):
            write_onnx(quantized, tmp_path / "vit")

    @pytest.mark.parametrize("part", ["blocks.1.attn.proj", "patch_embed.proj", "blocks.0.norm1"])
    def test_a_graph_that_computes_something_else(
        self, make_vit: Make, images: Tensor, tmp_path: Path, part: str
    ) -> None:
        """As if the graph had been built wrong: torch has other values than it was built from."""
        quantized = quantize(make_vit(), images, bits=4)
        exported = plain_graph(quantized).model()
        scales = [t for t in exported.graph.initializer if t.name.startswith(f"{part}/scale")]
        tensor = scales[-1]  # the weight's, where the input has one too
        values = onnx.numpy_helper.to_array(tensor) * np.float32(1.3)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        with pytest.raises(ArtifactError, match="must give in onnxruntime"):
            verification.verify(exported, quantized)

    @pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
    def test_to_work_without_its_packages(
        self, quantized: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr("igq.formats.onnx.find_spec", lambda n: None if n == name else sys)
        with pytest.raises(ArtifactError, match=rf"needs {name}, .*pip install 'igq-vit\[onnx\]'"):
            write_onnx(quantized, tmp_path / "vit")
