"""ONNX as a model format."""

from __future__ import annotations

from functools import partial
from typing import cast

from inferd.streams.inference.formats.onnx.library import EXTRA, library
from inferd.streams.inference.formats.onnx.model_file import BEGINS, NAME, OnnxFile, read_model_file, sniff
from inferd.streams.inference.formats.onnx.runtime import OnnxRuntime
from inferd.streams.inference.libraries import installed_version
from inferd.streams.inference.model_format import ModelFile, ModelFormat


def _load(content: bytes, file: ModelFile, threads: int) -> OnnxRuntime:
    return OnnxRuntime(content, cast(OnnxFile, file), threads)


ONNX = ModelFormat(
    name=NAME,
    begins=BEGINS,
    sniff=sniff,
    read=read_model_file,
    load=_load,
    load_library=library,
    library_version=partial(installed_version, "ONNX Runtime", EXTRA, "onnxruntime", "onnxruntime-gpu"),
)
