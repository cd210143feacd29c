"""CatBoost models (.cbm): read and checked without the library, scored by the library's own package."""

from inferd.streams.inference.formats.catboost.format import CATBOOST

__all__ = ["CATBOOST"]
