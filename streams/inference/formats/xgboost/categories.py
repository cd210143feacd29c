"""The values of categorical features, which files since XGBoost 3.1 contain for data frames (`CatContainer::Save`)."""

from __future__ import annotations

from itertools import pairwise

from inferd.schemas.models import Category
from inferd.streams.inference.features import Values
from inferd.streams.inference.formats.xgboost.document import Part

Categories = tuple[Values | None, ...]
"""The values of each feature, in the order of their codes; None for a feature without."""


def read_categories(part: Part, features: int) -> Categories:
    """The categories of all features; empty if the model was not trained on a data frame with categories."""
    encoders = part["enc"].items()
    if encoders and len(encoders) != features:
        part["enc"].fail(f"has categories of {len(encoders)} features, the model has {features}")
    return tuple(_values(encoder) for encoder in encoders)


def _values(encoder: Part) -> Values | None:
    """The values; None if the file does not have them completely. Requests then contain their codes.

    XGBoost's Python package truncates texts at the number of characters, not of bytes, so texts beyond ASCII are
    damaged in the file (`npstr_to_arrow_strarr` in its `_data_utils.py`).
    """
    found = _texts(encoder) if encoder.has("offsets") else tuple(encoder["values"].numbers())
    return None if len(set(found)) < len(found) else found or None


def _texts(encoder: Part) -> tuple[Category, ...]:
    """Splits concatenated texts at the offsets; empty if they are not all ASCII."""
    offsets = encoder["offsets"].ints().tolist()
    values = encoder["values"].ints()
    if offsets and (offsets[0] != 0 or offsets != sorted(offsets) or offsets[-1] != len(values)):
        encoder["offsets"].fail(f"do not divide {len(values)} bytes")
    content = (values & 0xFF).astype("u1").tobytes()
    return tuple(content[start:stop].decode() for start, stop in pairwise(offsets)) if content.isascii() else ()
