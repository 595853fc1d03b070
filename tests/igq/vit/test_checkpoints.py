"""Making timm models and loading weights into them."""

import pickle
import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import igq
from igq import UnsupportedModelError, WeightsError
from igq.vit import Architecture, architecture, create, load_weights, remake
from tests.tiny import TINY

Make = Callable[..., nn.Module]
NAME = "vit_tiny_patch16_224"


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class TestCreate:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize(
        "prefix", ["", "module.", "model.", "module.model.", "model.module.", "model._orig_mod."]
    )
    def test_weights_of_a_file_are_in_the_model(
        self, vit: nn.Module, images: Tensor, tmp_path: Path, suffix: str, prefix: str
    ) -> None:
        file = tmp_path / f"weights{suffix}"
        tensors = {f"{prefix}{name}": tensor for name, tensor in tensors_of(vit).items()}
        (save_file if suffix == ".safetensors" else torch.save)(tensors, file)
        assert torch.equal(create(NAME, TINY, file)(images), vit(images))

    @pytest.mark.parametrize("wrapper", ["state_dict", "model"])
    def test_a_checkpoint_s_wrapper_is_taken_off(
        self, vit: nn.Module, images: Tensor, tmp_path: Path, wrapper: str
    ) -> None:
        file = tmp_path / "weights.pth"
        torch.save({wrapper: tensors_of(vit), "epoch": 3}, file)
        assert torch.equal(create(NAME, TINY, file)(images), vit(images))

    @pytest.mark.slow
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize(
        "name", ["deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"]
    )
    def test_a_fine_tuned_model_has_its_own_classes_and_image_size(
        self, tmp_path: Path, name: str, suffix: str
    ) -> None:
        arguments = {"num_classes": 37, "img_size": 64}
        tuned = timm.create_model(name, **arguments).eval()
        for parameter in tuned.parameters():
            parameter.data += 0.01 * torch.rand_like(parameter)
        file = tmp_path / f"weights{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(tensors_of(tuned), file)
        images = torch.randn(2, 3, 64, 64)
        loaded = create(name, arguments, file)
        assert torch.equal(loaded(images), tuned(images))
        assert loaded(images).shape == (2, 37)
        assert igq.layers(loaded) == igq.layers(tuned)

    def test_weights_of_another_number_of_classes_are_refused_by_name(
        self, vit: nn.Module, tmp_path: Path
    ) -> None:
        file = tmp_path / "weights.safetensors"
        save_file(tensors_of(vit), file)
        with pytest.raises(WeightsError, match=r"must fit the model, but head.bias has shape"):
            create(NAME, TINY | {"num_classes": 37}, file)

    def test_a_model_is_made_for_evaluation(self) -> None:
        assert not create(NAME, TINY).training

    def test_an_unknown_model_is_refused_with_some_that_are_known(self) -> None:
        with pytest.raises(UnsupportedModelError) as raised:
            create("deit_giant")
        message = str(raised.value)
        assert message.startswith("`model` must be a model that timm has, but got 'deit_giant'.")
        assert "Did you mean deit" in message

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"colour": "red"}, "colour"),
            ({"num_heads": 5}, "divisible by num_heads"),
            ({"global_pool": "best"}, "pooling"),
        ],
        ids=["unknown", "does-not-divide", "not-a-choice"],
    )
    def test_arguments_that_timm_does_not_take_are_named(
        self, arguments: dict[str, object], named: str
    ) -> None:
        with pytest.raises(UnsupportedModelError) as raised:
            create(NAME, TINY | arguments)
        assert str(raised.value).startswith(f"timm cannot make {NAME} with arguments {{")
        assert named in str(raised.value)

    def test_weights_of_no_supported_family_are_not_read(self, tmp_path: Path) -> None:
        file = tmp_path / "weights.safetensors"
        save_file({"conv1.weight": torch.ones(1)}, file)
        with pytest.raises(UnsupportedModelError, match=r"must be a timm .*, but got a ResNet"):
            create("resnet18", weights=file)

    @pytest.mark.parametrize(
        ("name", "said"),
        [(NAME, 0), (f"{NAME}.augreg", 0), ("mine", 0), ("deit_tiny_patch16_224.fb_in1k", 1)],
    )
    def test_a_file_named_after_another_model_is_told(
        self, vit: nn.Module, tmp_path: Path, name: str, said: int
    ) -> None:
        file, told = tmp_path / f"{name}.safetensors", []
        save_file(vit.state_dict(), file)
        create(NAME, TINY, file, tell=told.append)
        assert [f"its name is that of timm's {name[:21]}, but" in line for line in told] == [
            True
        ] * said

    def test_an_unknown_tag_is_refused(self) -> None:
        with pytest.raises(UnsupportedModelError, match=r"Invalid pretrained tag \(nope\)"):
            create(f"{NAME}.nope")


class TestCreatePretrained:
    def test_without_network_a_local_file_is_asked_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(*args: object, **kwargs: object) -> None:
            raise urllib.error.URLError("no route to host")

        monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
        with pytest.raises(WeightsError) as raised:
            igq.create_pretrained(NAME)
        assert str(raised.value) == (
            f"the weights of {NAME} could not be fetched from the hub "
            "(<urlopen error no route to host>); give a local file with --weights."
        )

    def test_an_unknown_model_is_refused(self) -> None:
        with pytest.raises(UnsupportedModelError, match="must be a model that timm has"):
            igq.create_pretrained("deit_giant")


def missing(tensors: dict[str, Tensor]) -> None:
    del tensors["blocks.1.mlp.fc1.bias"]


def left_over(tensors: dict[str, Tensor]) -> None:
    tensors["blocks.2.mlp.fc1.bias"] = torch.zeros(3)


def of_another_shape(tensors: dict[str, Tensor]) -> None:
    tensors["head.bias"] = torch.zeros(1000)


def not_finite(tensors: dict[str, Tensor]) -> None:
    tensors["norm.bias"][3] = float("nan")


class TestWeightsThatDoNotFit:
    CASES = pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (missing, "must hold every tensor of the model, but lacks blocks.1.mlp.fc1.bias."),
            (
                left_over,
                "must fit the model, but the model has no blocks.2.mlp.fc1.bias. "
                "Likely they are of a model of 3 blocks, and this one has 2.",
            ),
            (
                of_another_shape,
                "must fit the model, but head.bias has shape [1000] where the model has [10].",
            ),
            (not_finite, "must hold finite weights, but norm.bias has NaN or infinity."),
        ],
        ids=["missing", "left-over", "of-another-shape", "not-finite"],
    )

    @CASES
    def test_the_tensor_is_named(
        self, vit: nn.Module, tmp_path: Path, spoil: Callable[..., None], message: str
    ) -> None:
        tensors, file = tensors_of(vit), tmp_path / "weights.safetensors"
        spoil(tensors)
        save_file(tensors, file)
        with pytest.raises(WeightsError) as raised:
            create(NAME, TINY, file)
        assert str(raised.value) == f"{file} {message}"

    @CASES
    def test_nothing_is_loaded(
        self, make_vit: Make, spoil: Callable[..., None], message: str
    ) -> None:
        model = make_vit()
        before = tensors_of(model)
        tensors = {name: tensor + 1 for name, tensor in before.items()}
        spoil(tensors)
        with pytest.raises(WeightsError):
            load_weights(model, tensors, "the file")
        assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


class Malicious:
    """Unpickling it runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return subprocess.check_call, (["touch", str(self.proof)],)


class TestFilesThatCannotBeRead:
    def test_a_pickle_that_runs_code_is_refused_without_running_it(self, tmp_path: Path) -> None:
        proof, file = tmp_path / "proof", tmp_path / "weights.pth"
        torch.save({"head.weight": Malicious(proof)}, file)
        with pytest.raises(WeightsError) as raised:
            create(NAME, TINY, file)
        assert str(raised.value) == (
            f"{file} must hold tensors, and nothing that runs code, but has "
            "commands.check_call; save model.state_dict() alone."
        )
        assert not proof.exists()

        torch.load(file, weights_only=False)  # what it would have done
        assert proof.exists()

    def test_so_is_one_without_torch_s_zip_around_it(self, tmp_path: Path) -> None:
        proof, file = tmp_path / "proof", tmp_path / "weights.pth"
        file.write_bytes(pickle.dumps({"head.weight": Malicious(proof)}, protocol=2))
        with pytest.raises(WeightsError, match="must hold tensors"):
            create(NAME, TINY, file)
        assert not proof.exists()

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_a_truncated_file(self, vit: nn.Module, tmp_path: Path, suffix: str) -> None:
        file = tmp_path / f"weights{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(tensors_of(vit), file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(WeightsError, match="could not be read as weights"):
            create(NAME, TINY, file)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize("content", [b"", b"not weights at all"], ids=["empty", "text"])
    def test_another_kind_of_file(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        file = tmp_path / f"weights{suffix}"
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=f"^{file} "):
            create(NAME, TINY, file)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="could not be read as weights: "):
            create(NAME, TINY, tmp_path / "none.safetensors")

    @pytest.mark.parametrize(
        "content", [torch.zeros(3), [torch.zeros(3)], {"head.bias": 3}], ids=["tensor", "list", "n"]
    )
    def test_values_that_are_not_tensors_by_name(self, tmp_path: Path, content: object) -> None:
        file = tmp_path / "weights.pth"
        torch.save(content, file)
        with pytest.raises(WeightsError, match="must hold tensors by name alone"):
            create(NAME, TINY, file)


class TestArchitecture:
    def test_a_stock_model_needs_its_name_alone(self) -> None:
        deit = timm.create_model("deit_tiny_patch16_224")
        assert architecture(deit) == Architecture("deit_tiny_patch16_224", {})

    def test_what_differs_from_stock_is_noted(self, vit: nn.Module) -> None:
        made = architecture(vit)
        assert made.name == NAME
        # Not `num_heads`: 3 is what this model has anyway.
        different = {name: value for name, value in TINY.items() if name != "num_heads"}
        assert made.arguments == different | {"img_size": [8, 8], "patch_size": [2, 2]}

    def test_a_variant_is_made_again(self, variant: nn.Module) -> None:
        again = remake(architecture(variant))
        assert repr(again) == repr(variant)
        assert {name: t.shape for name, t in again.state_dict().items()} == {
            name: t.shape for name, t in variant.state_dict().items()
        }

    def test_a_quantized_model_is_described_as_its_original(
        self, vit: nn.Module, quantized: nn.Module
    ) -> None:
        assert architecture(quantized) == architecture(vit)

    @pytest.mark.parametrize(("embed_dim", "hidden"), [(11, 15), (21, 51), (12, 48)])
    def test_a_hidden_width_survives_being_written_as_a_ratio(
        self, make_vit: Make, embed_dim: int, hidden: int
    ) -> None:
        ratio = (hidden + 0.5) / embed_dim
        model = make_vit(embed_dim=embed_dim, num_heads=1, mlp_ratio=ratio)
        assert remake(architecture(model)).blocks[0].mlp.fc1.out_features == hidden

    def test_a_model_that_does_not_know_its_name_is_refused(self, make_vit: Make) -> None:
        model = make_vit()
        del model.pretrained_cfg
        with pytest.raises(UnsupportedModelError, match=r"must be made by timm\.create_model"):
            architecture(model)

    def test_a_file_s_word_has_timm_read_no_other_file(self) -> None:
        made = Architecture(NAME, TINY | {"checkpoint_path": "/etc/passwd"})
        with pytest.raises(UnsupportedModelError) as raised:
            remake(made)
        assert str(raised.value).startswith("`arguments` must be among img_size, patch_size, ")
        assert str(raised.value).endswith(", but got checkpoint_path.")
