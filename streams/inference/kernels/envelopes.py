"""Reads the envelopes of requests in the plain layout with the compiled kernel: id, model and bytes of the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.kernels.rows import ENCODINGS, Encoding, RowKernel
from inferd.streams.inference.spans import AsciiTexts, Spans

MODELS_MAX = 64
"""Maximum number of different models in a call, as in envelopes.c; requests to others are not read."""
ENVELOPE = np.dtype([(name, "i8") for name in ("model", "id_at", "id_length", "row_at", "row_length", "row")])
"""The struct of envelopes.c."""


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
    """Requests of one row each to one model, without `outputs`. The columns are parallel."""

    model_id: str
    indexes: NDArray[np.intp]
    """Indexes in the sequence passed to `read`."""
    ids: AsciiTexts | list[str | None]
    """Valid ids; None where the request has none."""
    rows: Spans
    """The encoded `input_data`: a list or map whose values are not checked."""
    read: ReadRows | None
    """The rows that were read, if a kernel was given."""


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
        """The plain requests among `values`, grouped by model; and the indexes of the others. The kernel `rows` reads
        their rows in the same pass, where it can: it is a guess, as the models are not known before."""
        spans = Spans.of(values)
        content = spans.content
        envelopes = np.empty(len(values), ENVELOPE)
        matrix = np.empty((len(values), 0 if rows is None else rows.features))
        models = self.read_into(envelopes, encoding, content, spans.starts, spans.ends, rows, matrix)
        found = []
        for number, (at, length) in enumerate(models.tolist()):
            chosen = np.flatnonzero(envelopes["model"] == number)
            try:
                model_id = content[at : at + length].decode()
            except UnicodeDecodeError:
                envelopes["model"][chosen] = -1
                continue
            if len(chosen):
                read = (
                    ReadRows(rows, matrix, np.ascontiguousarray(envelopes["row"][chosen])) if rows is not None else None
                )
                found.append(_requests(model_id, chosen, envelopes[chosen], content, read))
        return found, np.flatnonzero(envelopes["model"] < 0).tolist()

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
        must be given with `rows`. Returns int64 (models, 2): where the content names each model, and the length of the
        name. `MemoryError` if there is no memory for the names of a row.
        """
        models = np.empty((MODELS_MAX, 2), np.int64)
        count: int = self._read(
            ENCODINGS.index(encoding), content, starts.ctypes.data, ends.ctypes.data, len(ends), self._bytes_max,
            self._id_bytes.ctypes.data, self._id_chars_max, None if rows is None else rows.schema_at,
            None if matrix is None else matrix.ctypes.data, models.ctypes.data, envelopes.ctypes.data,
        )  # fmt: skip
        if count < 0:
            raise MemoryError("names of the features of a row")
        return models[:count]


def _requests(
    model_id: str,
    indexes: NDArray[np.intp],
    envelopes: NDArray[np.void],
    content: bytes,
    read: ReadRows | None,
) -> PlainRequests:
    id_at, row_at = np.ascontiguousarray(envelopes["id_at"]), np.ascontiguousarray(envelopes["row_at"])
    ids, has_id = AsciiTexts(Spans(content, id_at, id_at + envelopes["id_length"])), id_at >= 0
    return PlainRequests(
        model_id=model_id,
        indexes=indexes,
        ids=ids if has_id.all() else [ids[k] if given else None for k, given in enumerate(has_id.tolist())],
        rows=Spans(content, row_at, row_at + envelopes["row_length"]),
        read=read,
    )
