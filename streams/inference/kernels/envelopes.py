"""Reads the envelopes of requests in the plain layout with the compiled kernel: id, model, outputs, encoded rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.kernels.rows import ENCODINGS, Encoding, RowKernel
from inferd.streams.inference.spans import AsciiTexts, Spans

KINDS_MAX = 64
"""Maximum number of different kinds of requests in a call, as in envelopes.c; others are not read."""
ENVELOPE = np.dtype([
    (name, "i8") for name in ("kind", "id_at", "id_length", "data_at", "data_length", "rows", "row")
])  # fmt: skip
"""The struct of envelopes.c."""
_KIND_FIELDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class ReadRows:
    """Rows that were read with their envelopes."""

    kernel: RowKernel
    """The one that read them."""
    matrix: NDArray[np.float64]
    """(rows, features)."""
    places: NDArray[np.int64]
    """int64 (requests,): where the row of each request is in the matrix, ascending; -1: it was not read."""

    def take(self, requests: NDArray[np.intp]) -> ReadRows:
        """Those of the requests at indexes."""
        return ReadRows(self.kernel, self.matrix, self.places[requests])

    def rows(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """As of `RowKernel.read`: the rows that were read, in a matrix of their own; and which these are."""
        fits = self.places >= 0
        count = int(fits.sum())
        # The places ascend: of the first rows, nothing has to be copied.
        in_front = count > 0 and self.places.max() == count - 1
        return self.matrix[:count] if in_front else self.matrix[self.places[fits]], fits


@dataclass(frozen=True, slots=True)
class PlainRequests:
    """Requests to one model with the same `outputs`, either of a row or of a list of rows each. The columns are
    parallel."""

    model_id: str
    outputs: bytes | None
    """A flat list, encoded, whose items are not checked; None if it is absent."""
    indexes: NDArray[np.intp]
    """Indexes in the sequence passed to `read`."""
    ids: AsciiTexts | list[str | None]
    """Valid ids; None where the request has none."""
    data: Spans
    """The encoded `input_data`: a row, or a list of rows; a row is a list or map whose values are not checked."""
    counts: NDArray[np.int64] | None
    """How many rows each lists, at least one; None if each is a row itself."""
    read: ReadRows | None
    """The rows that were read, if a kernel was given and each request is a row."""


class EnvelopeKernel:
    """Reads envelopes with the limits of a scorer. Thread-safe."""

    def __init__(self, library: Library, id_bytes: bytes, id_chars_max: int, bytes_max: int) -> None:
        """`id_bytes`: the allowed bytes of an id; `bytes_max`: the maximum size of a request."""
        self._read = library.read_envelopes
        self._id_bytes = np.zeros(256, np.uint8)
        self._id_bytes[list(id_bytes)] = 1
        self._id_chars_max, self._bytes_max = id_chars_max, bytes_max

    def read(
        self, encoding: Encoding, values: Sequence[bytes], rows: RowKernel | None = None
    ) -> tuple[list[PlainRequests], list[int]]:
        """The plain requests among `values`, by kind; and the indexes of the others. The kernel `rows` reads their rows
        in the same pass, where it can: it is a guess, as the models are not known before."""
        spans = Spans.of(values)
        content = spans.content
        envelopes = np.empty(len(values), ENVELOPE)
        matrix = np.empty((len(values), 0 if rows is None else rows.features))
        kinds = self.read_into(envelopes, encoding, content, spans.starts, spans.ends, rows, matrix)
        found = []
        for number, kind in enumerate(kinds.tolist()):
            chosen = np.flatnonzero(envelopes["kind"] == number)
            try:
                model_id = content[kind[0] : kind[0] + kind[1]].decode()
            except UnicodeDecodeError:
                envelopes["kind"][chosen] = -1
                continue
            outputs = None if kind[2] < 0 else content[kind[2] : kind[2] + kind[3]]
            taken, read = envelopes[chosen], None
            counts = np.ascontiguousarray(taken["rows"]) if kind[4] else None
            if rows is not None and counts is None:
                read = ReadRows(rows, matrix, np.ascontiguousarray(taken["row"]))
            ids, data = _ids(taken, content), _spans(content, taken, "data")
            found.append(PlainRequests(model_id, outputs, chosen, ids, data, counts, read))
        return found, np.flatnonzero(envelopes["kind"] < 0).tolist()

    def read_into(
        self,
        envelopes: NDArray[np.void],
        encoding: Encoding,
        content: bytes | int,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        rows: RowKernel | None = None,
        matrix: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Like `read`, for requests within bytes or the memory at an address, given where each starts and ends.

        Fills `envelopes`, `ENVELOPE` (requests,), and the first rows of `matrix`, float64 (requests, features), which
        must be given with `rows`. Returns int64 (kinds, 5): where the content has the model and its length, the same of
        the outputs, or -1 and 0, and whether `input_data` is a list of rows. `MemoryError` if there is no memory for
        the names of a row.
        """
        kinds = np.empty((KINDS_MAX, _KIND_FIELDS), np.int64)
        count: int = self._read(
            ENCODINGS.index(encoding), content, starts.ctypes.data, ends.ctypes.data, len(ends), self._bytes_max,
            self._id_bytes.ctypes.data, self._id_chars_max, None if rows is None else rows.schema_at,
            None if matrix is None else matrix.ctypes.data, kinds.ctypes.data, envelopes.ctypes.data,
        )  # fmt: skip
        if count < 0:
            raise MemoryError("names of the features of a row")
        return kinds[:count]


def split_rows(library: Library, encoding: Encoding, lists: Spans, count: int) -> Spans:
    """The rows of all lists, `PlainRequests.data`, which have `count` rows together.

    `ValueError` if they are no lists of rows, or have others.
    """
    rows = np.empty((count, 2), np.int64)
    places = (lists.content, lists.starts.ctypes.data, lists.ends.ctypes.data, len(lists))
    if library.split_rows(ENCODINGS.index(encoding), *places, rows.ctypes.data, count) != count:
        raise ValueError(f"the lists do not have {count} rows")
    starts = np.ascontiguousarray(rows[:, 0])
    return Spans(lists.content, starts, starts + rows[:, 1])


def _ids(envelopes: NDArray[np.void], content: bytes) -> AsciiTexts | list[str | None]:
    ids, has_id = AsciiTexts(_spans(content, envelopes, "id")), envelopes["id_at"] >= 0
    return ids if has_id.all() else [ids[k] if given else None for k, given in enumerate(has_id.tolist())]


def _spans(content: bytes, envelopes: NDArray[np.void], name: str) -> Spans:
    starts = np.ascontiguousarray(envelopes[f"{name}_at"])
    return Spans(content, starts, starts + envelopes[f"{name}_length"])
