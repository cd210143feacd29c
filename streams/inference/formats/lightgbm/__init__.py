"""LightGBM text models: read and checked without the library, scored by the library's own C API."""
