"""Rows as requests, and results as outcomes of rows, in the rows' order."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inferd.daemon.cli.predict.row_sources import Row
from inferd.schemas.errors import InferenceError, ModelServingError
from inferd.schemas.requests import Failure, Result


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a row: its `values` by output and the model version, or its `error`."""

    row: int
    values: dict[str, Any]
    version: int | None = None
    error: ModelServingError | None = None


@dataclass(slots=True)
class RowBatch:
    """The rows of one request, of which `first` is the number of the first; or a row that cannot even be read."""

    first: int
    rows: list[Row] = field(default_factory=list)
    error: InferenceError | None = None

    @property
    def input_data(self) -> Row | list[Row]:
        """As the request says it; a lone row goes bare, in the layout that is decoded fastest."""
        return self.rows[0] if len(self.rows) == 1 else self.rows

    def outcomes(self, result: Result) -> Iterator[Outcome]:
        """One a row."""
        bad = {} if isinstance(result, Failure) else {each.row: each.error() for each in result.errors or ()}
        for place in range(len(self.rows)):
            if isinstance(result, Failure):
                yield Outcome(self.first + place, {}, error=result.error())
            elif place in bad:
                yield Outcome(self.first + place, {}, error=bad[place])
            else:
                yield Outcome(self.first + place, self._values(result.outputs, place), result.version)

    def _values(self, outputs: dict[str, Any], place: int) -> dict[str, Any]:
        if len(self.rows) == 1:
            return outputs
        return {output: values[place] for output, values in outputs.items()}


async def outcomes_in_order(
    predict_many: Callable[[AsyncIterator[Row | list[Row]]], AsyncIterator[Result]],
    rows: AsyncIterator[Row | InferenceError],
    batch_rows: int,
) -> AsyncIterator[Outcome]:
    """One outcome a row; `predict_many` gives one result a request, in their order."""
    sent: deque[RowBatch] = deque()

    async def requests() -> AsyncIterator[Row | list[Row]]:
        async for batch in batches(rows, batch_rows):
            sent.append(batch)
            if batch.error is None:
                yield batch.input_data

    async for result in predict_many(requests()):
        for outcome in _unreadable(sent):
            yield outcome
        for outcome in sent.popleft().outcomes(result):
            yield outcome
    for outcome in _unreadable(sent):
        yield outcome


async def batches(rows: AsyncIterator[Row | InferenceError], batch_rows: int) -> AsyncIterator[RowBatch]:
    """At most `batch_rows` rows each; a row that cannot be read comes alone."""
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


def _unreadable(sent: deque[RowBatch]) -> Iterator[Outcome]:
    while sent and sent[0].error is not None:
        unread = sent.popleft()
        yield Outcome(unread.first, {}, error=unread.error)
