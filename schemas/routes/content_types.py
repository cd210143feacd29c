"""Content types of the formats of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CONTENT_TYPES: Mapping[str, Sequence[str]] = {
    "json": ("application/json", "text/json"),
    "msgpack": ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"),
    "avro": ("application/vnd.apache.avro", "application/avro", "application/x-avro", "avro/binary"),
    "protobuf": ("application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf"),
}
"""By the name of a format: its content types, the one that is written first."""
_FORMATS = {content_type: name for name, types in CONTENT_TYPES.items() for content_type in types}


def format_of(content_type: str) -> str | None:
    """The format that a content type names; its parameters do not matter. None if it names another."""
    media_type = content_type.partition(";")[0].strip().lower()
    return "json" if media_type.endswith("+json") else _FORMATS.get(media_type)
