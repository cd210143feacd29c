"""Reads the envelopes of requests in the plain layout with the compiled kernel: id, model and bytes of the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.kernels.rows import ENCODINGS, Encoding
from inferd.streams.inference.spans import AsciiTexts, Spans

MODELS_MAX = 64
"""Maximum number of different models in a call, as in envelopes.c; requests to others are not read."""
ENVELOPE = np.dtype([(name, "i8") for name in ("model", "id_at", "id_length", "row_at", "row_length")])
"""The struct of envelopes.c."""


@dataclass(frozen=True, slots=True)
class PlainRequests:
    """Requests of one row each to one model, without `outputs`. The lists are parallel."""

    model_id: str
    indexes: list[int]
    """Indexes in the sequence passed to `read`."""
    ids: AsciiTexts | list[str | None]
    """Valid ids; None where the request has none."""
    rows: Spans
    """The encoded `input_data`: a list or map whose values are not checked."""


class EnvelopeKernel:
    """Reads envelopes with the limits of a scorer. Thread-safe."""

    def __init__(self, library: Library, id_bytes: bytes, id_chars_max: int, bytes_max: int) -> None:
        """`id_bytes`: the allowed bytes of an id; `bytes_max`: the maximum size of a request."""
        self._read = library.read_envelopes
        self._id_bytes = np.zeros(256, np.uint8)
        self._id_bytes[list(id_bytes)] = 1
        self._id_chars_max, self._bytes_max = id_chars_max, bytes_max

    def read(self, encoding: Encoding, values: Sequence[bytes]) -> tuple[list[PlainRequests], list[int]]:
        """The plain requests among `values`, grouped by model; and the indexes of the others."""
        spans = Spans.of(values)
        content = spans.content
        envelopes = np.empty(len(values), ENVELOPE)
        models = self.read_into(envelopes, encoding, content, spans.starts, spans.ends)
        found = []
        for number, (at, length) in enumerate(models.tolist()):
            chosen = np.flatnonzero(envelopes["model"] == number)
            try:
                model_id = content[at : at + length].decode()
            except UnicodeDecodeError:
                envelopes["model"][chosen] = -1
                continue
            if len(chosen):
                found.append(_requests(model_id, chosen, envelopes[chosen], content))
        return found, np.flatnonzero(envelopes["model"] < 0).tolist()

    def read_into(
        self,
        envelopes: NDArray[np.void],
        encoding: Encoding,
        content: bytes | int,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Like `read`, for requests within bytes or the memory at an address, given where each starts and ends.

        Fills `envelopes`, `ENVELOPE` (requests,). Returns int64 (models, 2): where the content names each model, and
        the length of the name.
        """
        models = np.empty((MODELS_MAX, 2), np.int64)
        count: int = self._read(
            ENCODINGS.index(encoding), content, starts.ctypes.data, ends.ctypes.data, len(ends), self._bytes_max,
            self._id_bytes.ctypes.data, self._id_chars_max, models.ctypes.data, envelopes.ctypes.data,
        )  # fmt: skip
        return models[:count]


def _requests(model_id: str, indexes: NDArray[np.intp], envelopes: NDArray[np.void], content: bytes) -> PlainRequests:
    id_at, row_at = np.ascontiguousarray(envelopes["id_at"]), np.ascontiguousarray(envelopes["row_at"])
    found = AsciiTexts(Spans(content, id_at, id_at + envelopes["id_length"]))
    has_id = id_at >= 0
    return PlainRequests(
        model_id=model_id,
        indexes=indexes.tolist(),
        ids=found if has_id.all() else [found[k] if given else None for k, given in enumerate(has_id.tolist())],
        rows=Spans(content, row_at, row_at + envelopes["row_length"]),
    )
