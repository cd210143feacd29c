"""CatBoost's package. It is imported when the first model needs it, and imports pandas and scipy."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from inferd.schemas.errors import ServerError
from inferd.streams.inference.libraries import missing_library

PACKAGE, EXTRA = "catboost", "catboost"


@cache
def library() -> Any:
    """The package; `InternalError` naming the extra if it is not installed, `ServerError` if it cannot be imported."""
    if find_spec(PACKAGE) is None:
        raise missing_library("CatBoost", EXTRA)
    try:
        return import_module(PACKAGE)
    except ImportError as error:
        raise ServerError(f"CatBoost cannot be imported: {error}") from None
