"""MessagePack: maps of any shape. The added field is appended; only the header of the map changes."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.schemas.codecs import MSGPACK, header
from inferd.schemas.errors import TooLargeError
from inferd.streams.routes.formats.format import FailedRecord, Scored, Sources, Written
from inferd.streams.routes.formats.object_format import ObjectFormat
from inferd.streams.routes.formats.result_fields import encoded_results, failure_fields

_FIXED_MAP = range(0x80, 0x8F)
"""First bytes of maps with up to 14 fields: one more field adds 1 to the byte."""


class MsgpackEnricher:
    """Writes the original map plus one field."""

    def __init__(self, field: str) -> None:
        self._field = MSGPACK.encode(field)

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        fields = encoded_results(scored, MSGPACK)
        return [_appended(value, self._field + field) for value, field in zip(sources.values(), fields, strict=True)]

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        return _appended(source.values()[0], self._field + MSGPACK.encode(failure_fields(failed)))


def _appended(value: bytes, field: bytes) -> Written:
    """A map with one more field."""
    if value[0] in _FIXED_MAP:
        return bytes((value[0] + 1,)) + value[1:] + field
    _, count, body = header(value)
    if count + 1 >= 2**32:
        return TooLargeError("record: the map has no room for another field")
    return _map_header(count + 1) + value[body:] + field


def _map_header(count: int) -> bytes:
    return b"\xde" + count.to_bytes(2, "big") if count < 2**16 else b"\xdf" + count.to_bytes(4, "big")


MSGPACK_FORMAT = ObjectFormat(MSGPACK, MsgpackEnricher)
