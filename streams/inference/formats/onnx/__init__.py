"""ONNX models: read and checked without ONNX Runtime, scored by its sessions."""

from inferd.streams.inference.formats.onnx.format import ONNX

__all__ = ["ONNX"]
