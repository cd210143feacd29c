"""ONNX models: read and checked without ONNX Runtime, run by its sessions."""

from inferd.streams.inference.formats.onnx.format import ONNX

__all__ = ["ONNX"]
