"""scikit-learn models in `.skops` files: checked without the library, scored by the estimators' own methods,
with faster text vectorizers."""

from inferd.streams.inference.formats.sklearn.format import SKLEARN

__all__ = ["SKLEARN"]
