"""The builder of graphs: names, constants stored once, 4-bit codes, several domains."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from igq.formats.onnx.graph import Graph  # noqa: E402


def run(graph: Graph, **inputs: np.ndarray) -> list[np.ndarray]:
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)  # type: ignore[no-any-return]


def test_nodes_compute_in_order_with_an_axis_of_any_length() -> None:
    graph = Graph("test")
    x = graph.input("x", np.float32, ["rows", 2])
    doubled = graph.node("Mul", x, graph.constant(np.float32(2)))
    first, second = graph.nodes("Split", doubled, outputs=2, axis=1, num_outputs=2)
    graph.output("y", graph.node("Sub", first, second), np.float32, ["rows", 1])

    for rows in (1, 3):
        values = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        (y,) = run(graph, x=values)
        assert y.tolist() == (2 * (values[:, :1] - values[:, 1:])).tolist()


def test_names_tell_the_scope_and_are_never_taken_twice() -> None:
    graph = Graph("test")
    x = graph.input("x", np.float32, [2])
    with graph.scope("blocks.0"):
        names = [graph.node("Neg", x) for _ in range(2)]
        with graph.scope("blocks.0.attn"):
            names.append(graph.node("Neg", x))
    names.append(graph.node("Neg", x))

    assert names == ["blocks.0/Neg", "blocks.0/Neg_2", "blocks.0.attn/Neg", "Neg"]


def test_equal_constants_are_stored_once_and_those_of_another_type_or_shape_apart() -> None:
    graph = Graph("test")
    zero = graph.constant(np.float32(0), "zero")

    assert graph.constant(np.float32(0), "nought") == zero
    others = (np.int32(0), np.float32([0]), np.float32(-0.0))
    assert len({zero, *(graph.constant(value) for value in others)}) == 4
    assert len(graph.model().graph.initializer) == 4


@pytest.mark.parametrize("shape", [(3, 5), (2, 4)])
def test_packed_codes_take_half_a_byte_and_come_back(shape: tuple[int, int]) -> None:
    codes = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape) % 16
    scale, zero_point = np.full(shape[0], 0.5, np.float32), np.full(shape[0], 3, np.uint8)
    graph = Graph("test")
    packed, points = graph.packed(codes, "codes"), graph.packed(zero_point)
    dequantized = graph.node("DequantizeLinear", packed, graph.constant(scale), points, axis=0)
    graph.output("y", dequantized, np.float32, list(shape))

    (y,) = run(graph)

    assert y.tolist() == ((codes.astype(np.float32) - 3) * 0.5).tolist()
    stored = {tensor.name: tensor for tensor in graph.model().graph.initializer}
    assert len(stored["codes"].raw_data) == -(-codes.size // 2)


def test_a_domain_of_its_own_is_imported_and_metadata_are_kept() -> None:
    graph = Graph("test", domains={"igq": 1})
    graph.node("Linear", graph.input("x", np.float32, [2]), domain="igq", num_groups=8)
    model = graph.model({"notes": "{}"})

    assert {o.domain: o.version for o in model.opset_import} == {"": 21, "igq": 1}
    assert model.graph.node[0].attribute[0].i == 8
    assert {p.key: p.value for p in model.metadata_props} == {"notes": "{}"}
