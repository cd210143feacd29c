"""XGBoost models, JSON and UBJSON: read and checked without the library, scored by the library's own C API."""

from inferd.streams.inference.formats.xgboost.format import XGBOOST

__all__ = ["XGBOOST"]
