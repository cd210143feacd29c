"""JSON: objects of any shape. The added field is spliced in before the closing brace."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.schemas.codecs import JSON
from inferd.streams.routes.formats.format import FailedRecord, Scored, Sources, Written
from inferd.streams.routes.formats.object_format import ObjectFormat
from inferd.streams.routes.formats.result_fields import failure_fields, prediction_fields, result_pieces

_WHITESPACE = b" \t\r\n"
_CLOSING = ord("}")
_EMPTY = b"{" + _WHITESPACE


class JsonEnricher:
    """Writes the original object plus one field."""

    def __init__(self, field: str) -> None:
        self._field = JSON.encode(field) + b":"

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        if (pieces := result_pieces(scored, JSON)) is None:
            fields = list(map(JSON.encode, prediction_fields(scored)))
            head, tail = self._field, b""
        else:
            fields = JSON.encode_each(scored.columns[0])
            head, tail = self._field + pieces[0], pieces[1]
        following, closing, join = b"," + head, tail + b"}", b"".join
        return [
            # Nearly all objects end with a brace after a value.
            join((value[:-1], following, each, closing))
            if value[-1] == _CLOSING and value[-2] not in _EMPTY
            else _enriched(value, join((head, each, tail)))
            for value, each in zip(sources.values(), fields, strict=True)
        ]

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        return _enriched(source.values()[0], self._field + JSON.encode(failure_fields(failed)))


def _enriched(value: bytes, field: bytes) -> bytes:
    """An object with one more field at its end, and what follows it as it was."""
    end = len(value.rstrip(_WHITESPACE))
    members = value[: end - 1]
    comma = b"" if members.strip(_WHITESPACE) == b"{" else b","
    return b"".join((members, comma, field, b"}", value[end:]))


JSON_FORMAT = ObjectFormat(JSON, JsonEnricher)
