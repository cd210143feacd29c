"""LightGBM text models: read and checked without the library, scored by the library's own C API."""

from inferd.streams.inference.formats.lightgbm.c_library import library
from inferd.streams.inference.formats.lightgbm.model_file import ModelFile, read_model_file
from inferd.streams.inference.formats.lightgbm.objectives import MULTICLASS, canonical, class_count
from inferd.streams.inference.formats.lightgbm.openmp import load_openmp
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime

__all__ = [
    "MULTICLASS",
    "LightGBMRuntime",
    "ModelFile",
    "canonical",
    "class_count",
    "library",
    "load_openmp",
    "read_model_file",
]
