"""The bounds of rows, features and values of an `input_data`."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.schemas.errors import TooLargeError
from inferd.schemas.limits import Limits


def check_sizes(sizes: Sequence[int], limits: Limits) -> None:
    """Rejects rows of so many values each; `TooLargeError`."""
    check_count(len(sizes), limits.rows_max, "rows")
    check_count(max(sizes), limits.features_max, "features in a row")
    check_count(sum(sizes), limits.values_max, "values (rows x features)")


def check_count(count: int, count_max: int, what: str) -> None:
    """`TooLargeError` if there are more than `count_max`."""
    if count > count_max:
        raise TooLargeError(f"input_data: {count} {what}; at most {count_max} are allowed")
