"""scikit-learn models in `.skops` files: checked without the library, scored by the estimators' own methods."""

from inferd.streams.inference.formats.sklearn.format import SKLEARN

__all__ = ["SKLEARN"]
