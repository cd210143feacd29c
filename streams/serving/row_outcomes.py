"""What a chunk of rows comes to in a user's own code: for each row a value, or the error that it alone got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from inferd.schemas.errors import (
    InternalError,
    InvalidValueError,
    MalformedError,
    ModelServingError,
    SchemaMismatchError,
    TooLargeError,
)
from inferd.streams.inference import plain_value

OF_ROWS = (MalformedError, InvalidValueError, SchemaMismatchError, TooLargeError)
"""Errors that a single row can bring about: it is looked for, so that no other one suffers."""
Process = Callable[[Sequence[Any]], Any]
log = structlog.get_logger(__name__)


def row_outcomes(
    process: Process, rows: Sequence[Any], name: str = "process_batch", *, alone: bool = False
) -> list[Any]:
    """For each of `rows` a value that results can carry, or the `ModelServingError` in its place.

    `process` gives one value a row, in order, or an error for a single one. Where it raises an error that a row is to
    blame for, the row is found by halves; where it raises anything else, that is logged, and each of the rows fails,
    or, `alone`, the row to blame, which is found likewise. `name` is that of the user's method.
    """
    try:
        values = list(process(rows))
    except OF_ROWS as error:
        return [error] if len(rows) == 1 else _by_halves(process, rows, name, alone=alone)
    except ModelServingError as error:
        return [error] * len(rows)
    except (Exception, SystemExit) as fault:
        if alone and len(rows) > 1:
            return _by_halves(process, rows, name, alone=alone)
        log.exception(f"{name}_failed", rows=len(rows))
        return [InternalError(f"{type(fault).__name__} in {name}; the log has the traceback")] * len(rows)
    if len(values) != len(rows):
        log.error(f"{name}_failed", rows=len(rows), values=len(values))
        return [InternalError(f"{name} gave {len(values)} predictions for {len(rows)} rows")] * len(rows)
    return [_outcome(value) for value in values]


def _by_halves(process: Process, rows: Sequence[Any], name: str, *, alone: bool) -> list[Any]:
    half = len(rows) // 2
    parts = (rows[:half], rows[half:])
    return [outcome for part in parts for outcome in row_outcomes(process, part, name, alone=alone)]


def _outcome(value: Any) -> Any:
    if isinstance(value, ModelServingError):
        return value
    try:
        return plain_value(value)
    except InternalError as error:
        return error
