"""A builder of ONNX graphs: nodes in order, each constant once, names that tell the layer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
"""The first opset with 4-bit tensors and with scales for blocks of a tensor."""
IR_VERSION = 10
"""The version of ONNX files that came with this opset."""
Axis = int | str
"""The length of an axis, or the name of one whose length is known when the model runs."""


class Graph:
    """A graph that grows node by node, in the order of computation.

    Values are their names. Names of nodes and values start with the scope that they are made in;
    equal constants are stored once.

    >>> graph = Graph("double")
    >>> x = graph.input("x", np.float32, ["rows", 2])
    >>> with graph.scope("layer"):
    ...     doubled = graph.node("Mul", x, graph.constant(np.float32(2)))
    >>> graph.output("y", doubled, np.float32, ["rows", 2])
    >>> [node.name for node in graph.model().graph.node]
    ['layer/Mul', 'y']
    """

    def __init__(self, name: str, opset: int = OPSET, domains: Mapping[str, int] | None = None):
        self.name = name
        self.opsets = {"": opset, **(domains or {})}
        self._scope = ""
        self._taken: dict[str, int] = {}
        self._constants: dict[tuple[int, tuple[int, ...], bytes], str] = {}
        self._initializers: list[TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Begin the names of what is made inside with `name`, in place of an outer scope."""
        before, self._scope = self._scope, name
        try:
            yield
        finally:
            self._scope = before

    def input(self, name: str, dtype: Any, shape: list[Axis]) -> str:
        """Add an input of the model and return its name."""
        self._inputs.append(_value_info(name, dtype, shape))
        return self._fresh(name)

    def output(self, name: str, value: str, dtype: Any, shape: list[Axis]) -> None:
        """Make a value an output of the model, under a name of its own."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name))
        self._outputs.append(_value_info(name, dtype, shape))

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name; `""` is an input left out."""
        return self.nodes(operator, *inputs, outputs=1, domain=domain, **attributes)[0]

    def nodes(
        self, operator: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs and return their names."""
        name = self._fresh(f"{self._scope}/{operator}" if self._scope else operator)
        made = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        self._nodes.append(
            helper.make_node(operator, inputs, made, name, domain=domain, **attributes)
        )
        return made

    def constant(self, values: Any, name: str = "constant") -> str:
        """Return the name of an array's initializer; the first of equal arrays names it."""
        array = np.asarray(values, order="C")
        return self._initializer(numpy_helper.from_array(array), name)

    def packed(self, codes: Any, name: str = "codes") -> str:
        """Return the name of the UINT4 initializer of codes 0 to 15, two to a byte."""
        array = np.asarray(codes, np.uint8)
        flat = np.append(array.ravel(), np.zeros(array.size % 2, np.uint8))
        raw = (flat[::2] | flat[1::2] << 4).tobytes()
        made = TensorProto(data_type=TensorProto.UINT4, dims=array.shape, raw_data=raw)
        return self._initializer(made, name)

    def ints(self, *values: int) -> str:
        """Return the name of the constant of these whole numbers: a shape, or a list of axes."""
        return self.constant(np.array(values, np.int64), "x".join(map(str, values)))

    def model(self, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """Return the model of all nodes so far; metadata are texts by name."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self._initializers
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="igq-vit"
        )
        helper.set_model_props(model, dict(metadata or {}))
        return model

    def _initializer(self, tensor: TensorProto, name: str) -> str:
        key = tensor.data_type, tuple(tensor.dims), tensor.raw_data
        if key not in self._constants:
            tensor.name = self._fresh(f"{self._scope}/{name}" if self._scope else name)
            self._constants[key] = tensor.name
            self._initializers.append(tensor)
        return self._constants[key]

    def _fresh(self, name: str) -> str:
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else self._fresh(f"{name}_{count}")


def _value_info(name: str, dtype: Any, shape: list[Axis]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
