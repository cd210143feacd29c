"""Encodes results of one model version; the bytes that all results have in common are encoded once.

The bytes equal those of `inferd.schemas.codec.encode_result`, which a test verifies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from inferd.schemas.codecs import HOLE, Codec
from inferd.schemas.models import Manifest
from inferd.schemas.requests import OUTPUTS, OWN_OUTPUTS, Output
from inferd.streams.inference.features import ENCODINGS
from inferd.streams.inference.kernels import join_results, kernels_in_use, library
from inferd.streams.inference.spans import AsciiTexts, Spans


class ResultTemplate:
    """`render(request_id, values)` is a result of this version with these outputs."""

    def __init__(self, manifest: Manifest, outputs: Sequence[Output], codec: Codec) -> None:
        constants = {"model_id": manifest.model_id, "version": manifest.version, "digest": manifest.sha256}
        fields = [("id", HOLE), *constants.items(), *[(output, HOLE) for output in outputs if output in OUTPUTS]]
        own = [(output, HOLE) for output in outputs if output not in OUTPUTS]
        pieces = _nested(fields, own, codec) if own else codec.map_pieces(fields)
        self._head, *self._keys, self._tail = pieces
        self._codec = codec

    def render(self, request_id: str, values: Iterable[Any]) -> bytes:
        """The bytes of a result. `values` are in the order of the outputs in a result."""
        encode = self._codec.encode
        parts = [self._head, encode(request_id)]
        for key, value in zip(self._keys, values, strict=True):
            parts.append(key)
            parts.append(encode(value))
        parts.append(self._tail)
        return b"".join(parts)

    def render_columns(self, ids: Sequence[str], columns: Sequence[Sequence[Any]]) -> Sequence[bytes]:
        """The results of requests: as `render`, for a whole micro-batch. `columns`: by output, the value of each."""
        encode, head, (key, *others), tail = self._codec.encode, self._head, self._keys, self._tail
        encoded, *rest = map(self._codec.encode_each, columns)
        for other, values in zip(others, rest, strict=True):
            encoded = [first + other + value for first, value in zip(encoded, values, strict=True)]
        encoding = ENCODINGS.get(self._codec)
        if isinstance(ids, AsciiTexts) and encoding is not None and kernels_in_use():
            return join_results(library(), encoding, (head, key, tail), ids.spans, Spans.of(encoded))
        return [head + encode(each) + key + value + tail for each, value in zip(ids, encoded, strict=True)]


def _nested(fields: list[tuple[str, Any]], own: list[tuple[str, Any]], codec: Codec) -> list[bytes]:
    """The constant parts of a map whose last field is a map of the model's own outputs."""
    *before, opening, closing = codec.map_pieces([*fields, (OWN_OUTPUTS, HOLE)])
    first, *between, last = codec.map_pieces(own)
    return [*before, opening + first, *between, last + closing]
