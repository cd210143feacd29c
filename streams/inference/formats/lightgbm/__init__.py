"""LightGBM text models: read and checked without the library, scored by the library's own C API."""

from inferd.streams.inference.formats.lightgbm.format import LIGHTGBM

__all__ = ["LIGHTGBM"]
