"""ONNX with the runtime's operators, in onnxruntime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igq
from igq.runtime import deploy, library_path

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

from igq.formats.onnx import write_onnx_igq  # noqa: E402
from igq.formats.onnx.operators import onnx_with_operators  # noqa: E402


@pytest.fixture
def library() -> Path:
    path = library_path()
    if path is None:
        pytest.skip("the runtime is not built: `pip install .` with a C++ compiler")
    return path


def session(path: Path, library: Path, threads: int = 1) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class TestOperators:
    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("count", [1, 5])
    def test_onnxruntime_gives_what_torch_gives(
        self,
        quantized: nn.Module,
        images: Tensor,
        tmp_path: Path,
        library: Path,
        threads: int,
        count: int,
    ) -> None:
        path = write_onnx_igq(quantized, tmp_path / "model") / "model.onnx"
        given = images[:count]
        (logits,) = session(path, library, threads).run(None, {"images": given.numpy()})
        with torch.inference_mode():
            expected = deploy(quantized)(given).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-5)

    def test_a_block_has_five_nodes(self, quantized: nn.Module) -> None:
        nodes = onnx_with_operators(quantized).graph.node
        assert sum(node.domain == "igq" for node in nodes) == 1 + 5 * len(quantized.blocks) + 1

    def test_a_damaged_panel_is_refused(
        self, quantized: nn.Module, images: Tensor, tmp_path: Path, library: Path
    ) -> None:
        model = onnx_with_operators(quantized)
        panel = next(i for i in model.graph.initializer if i.name.endswith("panel"))
        panel.raw_data = b"\0" * len(panel.raw_data)
        onnx.save(model, tmp_path / "damaged.onnx")
        loaded = session(tmp_path / "damaged.onnx", library)
        with pytest.raises(Exception, match="mark of its operator"):
            loaded.run(None, {"images": images.numpy()})

    def test_images_of_other_channels_are_refused(
        self, quantized: nn.Module, images: Tensor, tmp_path: Path, library: Path
    ) -> None:
        path = write_onnx_igq(quantized, tmp_path / "model") / "model.onnx"
        with pytest.raises(Exception, match="Got: 3 Expected: 1"):
            session(path, library).run(None, {"images": images.repeat(1, 3, 1, 1).numpy()})

    @pytest.mark.parametrize("variant_name", ["swin", "registers", "average-pool", "qk-norm"])
    def test_a_model_with_other_parts_is_refused_by_name(
        self, variant_name: str, make: Callable[[str], nn.Module], noise_for: Callable[..., Tensor]
    ) -> None:
        vit = make(variant_name)
        candidates = igq.fit(igq.observe(vit, noise_for(vit)), (2,), bits=8)
        quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 2)), 8)
        with pytest.raises(igq.UnsupportedModelError, match="must be"):
            onnx_with_operators(quantized)
