"""Builds the result of a chunk from the model's values and from errors of earlier checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import codec_named
from inferd.schemas.errors import InternalError, ModelServingError, TooLargeError
from inferd.schemas.jobs import Chunk, ChunkResult, encode_chunk_result
from inferd.schemas.limits import Limits
from inferd.schemas.requests import Output, RowError

ROW_MESSAGE_CHARS_MAX = 200
"""Size limit of an error message: one record may hold thousands."""
_UNSAYABLE = (TypeError, ValueError, OverflowError, RecursionError)


class ChunkDraft:
    """Collects the outcomes of the rows of one chunk.

    Rows are indexed among those that are scored: all rows of the chunk, or those that failed before (`places`, indexes
    in the chunk). `numbers` are their numbers in the job.
    """

    def __init__(self, chunk: Chunk, previous: ChunkResult | None) -> None:
        self.chunk = chunk
        self.places: Sequence[int] | None = None
        self.numbers: Sequence[int] = range(chunk.first_row, chunk.first_row + chunk.row_count)
        if previous is not None:
            self.numbers = [error.row for error in previous.errors]
            self.places = [row - chunk.first_row for row in self.numbers]
        self.faults: list[Exception] = []
        self.expected = 0
        """Number of rows that need values from the model or user code."""
        self._previous = previous
        self._scored: NDArray[np.intp] | None = None
        self._errors: dict[int, ModelServingError] = {}
        self._values: dict[Output, list[Any]] = {}

    def fail(self, error: ModelServingError) -> None:
        """Sets `error` for every row."""
        self.expected = 0
        self._values = {}
        self._errors = dict.fromkeys(range(len(self.numbers)), error)

    def expect(self, rows: int, scored: NDArray[np.intp] | None, errors: Mapping[int, ModelServingError]) -> None:
        """Expects values for `rows` rows, at the indexes `scored` (None: all); the others have failed."""
        self.expected = rows
        self._scored = scored if rows < len(self.numbers) else None
        self._errors = dict(errors)

    def take(self, values: dict[Output, list[Any]], errors: Mapping[int, ModelServingError]) -> None:
        """Sets the values of the expected rows, in order; `errors` by index among them."""
        scored = range(len(self.numbers)) if self._scored is None else self._scored
        self._errors.update({int(scored[place]): error for place, error in errors.items()})
        if self._scored is None:
            self._values = values
            return
        self._values = {output: [None] * len(self.numbers) for output in values}
        for output, column in values.items():
            for place, value in zip(self._scored.tolist(), column, strict=True):
                self._values[output][place] = value

    def encode(self, limits: Limits) -> bytes:
        """The encoded result; if it is too large, each scored row gets `too_large`."""
        try:
            encoded = encode_chunk_result(self._result(), codec_named(self.chunk.encoding))
        except _UNSAYABLE as fault:
            self.faults.append(fault)
            self._reject_unencodable()
            encoded = encode_chunk_result(self._result(), codec_named(self.chunk.encoding))
        if (size := len(encoded)) > limits.result_bytes_max:
            self.fail(TooLargeError(f"the chunk's result has {size} bytes, and {limits.result_bytes_max} are allowed"))
            encoded = encode_chunk_result(self._result(), codec_named(self.chunk.encoding))
        return encoded

    def _reject_unencodable(self) -> None:
        for place, value in enumerate(self._values["prediction"]):
            try:
                msgspec.msgpack.encode(value)
                msgspec.json.encode(value)
            except _UNSAYABLE as fault:
                self._errors[place] = InternalError(f"a prediction of {type(value).__name__} cannot be sent: {fault}")

    def _result(self) -> ChunkResult:
        chunk = self.chunk
        rows = len(self.numbers)
        columns = {output: self._values.get(output) or [None] * rows for output in chunk.outputs}
        for place in self._errors:
            for column in columns.values():
                column[place] = None
        if self._previous is not None and self.places is not None:
            columns = self._merged(self._previous, self.places, columns)
        errors = [
            RowError(self.numbers[place], error.code, _shortened(error.message))
            for place, error in sorted(self._errors.items())
        ]
        return ChunkResult(
            chunk.job_id, chunk.chunk, chunk.first_row, chunk.attempt, chunk.version, chunk.digest, columns, errors
        )

    @staticmethod
    def _merged(
        previous: ChunkResult, places: Sequence[int], columns: Mapping[Output, list[Any]]
    ) -> dict[Output, list[Any]]:
        """The previous values, with those of the rows that were scored again."""
        merged = {output: list(values) for output, values in previous.outputs.items()}
        for output, values in columns.items():
            for place, value in zip(places, values, strict=True):
                merged[output][place] = value
        return merged


def _shortened(message: str) -> str:
    return message if len(message) <= ROW_MESSAGE_CHARS_MAX else message[: ROW_MESSAGE_CHARS_MAX - 1] + "…"
