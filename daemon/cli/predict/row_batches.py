"""Groups rows into requests, and splits results into outcomes of rows, in row order."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inferd.daemon.cli.predict.row_sources import Row
from inferd.schemas.errors import InferenceError, ModelServingError
from inferd.schemas.requests import Failure, Result

_ROW_NUMBER = re.compile(r"""(?<!\w)'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\brow (\d+)\b""")
"""`row 3` in a message, but not in a quoted name or value."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a row: its `values` by output and the model version, or its `error`."""

    row: int
    values: dict[str, Any]
    version: int | None = None
    error: ModelServingError | None = None


@dataclass(slots=True)
class RowBatch:
    """The rows of one request (`first` is the number of the first row), or one row that cannot be parsed (`error`)."""

    first: int
    rows: list[Row] = field(default_factory=list)
    error: InferenceError | None = None

    @property
    def input_data(self) -> Row | list[Row]:
        """The `input_data` of the request; a single row is not wrapped in a list, which decodes fastest."""
        return self.rows[0] if len(self.rows) == 1 else self.rows

    def outcomes(self, result: Result) -> Iterator[Outcome]:
        """One outcome per row."""
        bad = {} if isinstance(result, Failure) else {each.row: each.error() for each in result.errors or ()}
        for place in range(len(self.rows)):
            if isinstance(result, Failure):
                yield Outcome(self.first + place, {}, error=_numbered_in_file(result.error(), self.first))
            elif place in bad:
                yield Outcome(self.first + place, {}, error=_numbered_in_file(bad[place], self.first))
            else:
                yield Outcome(self.first + place, self._values(result.outputs, place), result.version)

    def _values(self, outputs: dict[str, Any], place: int) -> dict[str, Any]:
        if len(self.rows) == 1:
            return outputs
        return {output: values[place] for output, values in outputs.items()}


def _numbered_in_file(error: ModelServingError, first: int) -> ModelServingError:
    """The error with its row numbers counted in the file, where the request begins at row `first`."""

    def shifted(match: re.Match[str]) -> str:
        return match[0] if match[1] is None else f"row {int(match[1]) + first}"

    return type(error)(_ROW_NUMBER.sub(shifted, error.message)) if first else error


async def outcomes_in_order(
    predict_many: Callable[[AsyncIterator[Row | list[Row]]], AsyncIterator[Result]],
    rows: AsyncIterator[Row | InferenceError],
    batch_rows: int,
) -> AsyncIterator[Outcome]:
    """Yields one outcome per row; `predict_many` yields one result per request, in order."""
    sent: deque[RowBatch] = deque()

    async def requests() -> AsyncIterator[Row | list[Row]]:
        async for batch in batches(rows, batch_rows):
            sent.append(batch)
            if batch.error is None:
                yield batch.input_data

    async for result in predict_many(requests()):
        for outcome in _parse_errors(sent):
            yield outcome
        for outcome in sent.popleft().outcomes(result):
            yield outcome
    for outcome in _parse_errors(sent):
        yield outcome


async def batches(rows: AsyncIterator[Row | InferenceError], batch_rows: int) -> AsyncIterator[RowBatch]:
    """Batches of at most `batch_rows` rows; a row that cannot be parsed is a separate batch."""
    batch, number = RowBatch(0), 0
    async for row in rows:
        number += 1
        if not isinstance(row, InferenceError):
            batch.rows.append(row)
            if len(batch.rows) < batch_rows:
                continue
        if batch.rows:
            yield batch
        if isinstance(row, InferenceError):
            yield RowBatch(number - 1, error=row)
        batch = RowBatch(number)
    if batch.rows:
        yield batch


def _parse_errors(sent: deque[RowBatch]) -> Iterator[Outcome]:
    while sent and sent[0].error is not None:
        invalid = sent.popleft()
        yield Outcome(invalid.first, {}, error=invalid.error)
