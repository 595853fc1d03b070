"""Quantized models as ONNX: the only part of igq that imports onnx and onnxruntime."""

from igq.formats.onnx.graph import Graph

__all__ = ["Graph"]
