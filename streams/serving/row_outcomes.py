"""Calls user code with a batch of rows; each row gets its own value or error."""

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

ROW_LEVEL_ERRORS = (MalformedError, InvalidValueError, SchemaMismatchError, TooLargeError)
"""Errors that a single row can cause. The batch is bisected to find it, so that the other rows succeed."""
Process = Callable[[Sequence[Any]], Any]
log = structlog.get_logger(__name__)


def row_outcomes(
    process: Process, rows: Sequence[Any], name: str = "process_batch", *, alone: bool = False
) -> list[Any]:
    """For each of `rows` a value that can be encoded in a result, or a `ModelServingError`.

    `process` returns one value or error per row, in order. If it raises one of `ROW_LEVEL_ERRORS`, the rows are
    bisected to find the faulty one. Any other exception is logged and fails all rows; with `alone` the rows are
    bisected too. `name` is the name of the user's method, for logs and messages.
    """
    try:
        values = list(process(rows))
    except ROW_LEVEL_ERRORS as error:
        return [error] if len(rows) == 1 else _bisect(process, rows, name, alone=alone)
    except ModelServingError as error:
        return [error] * len(rows)
    except (Exception, SystemExit) as fault:
        if alone and len(rows) > 1:
            return _bisect(process, rows, name, alone=alone)
        log.exception(f"{name}_failed", rows=len(rows))
        return [InternalError(f"{type(fault).__name__} in {name}; the log has the traceback")] * len(rows)
    if len(values) != len(rows):
        log.error(f"{name}_failed", rows=len(rows), values=len(values))
        return [InternalError(f"{name} returned {len(values)} predictions for {len(rows)} rows")] * len(rows)
    return [_outcome(value) for value in values]


def _bisect(process: Process, rows: Sequence[Any], name: str, *, alone: bool) -> list[Any]:
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
