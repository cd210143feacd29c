"""The size of a record in Kafka's record batch format v2, https://kafka.apache.org/documentation/#recordbatch."""

from __future__ import annotations

from collections.abc import Iterable

_BATCH_HEADER_BYTES = 61
_LENGTH_BYTES_MAX = 5
"""A length or a count is a varint."""
_FIELDS_BYTES_MAX = 2 * _LENGTH_BYTES_MAX + 1 + 10
"""Length, offset, attributes and timestamp of a record."""


def record_bytes(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> int:
    """Upper bound of the uncompressed size of a batch with this one record; brokers check it against
    `max.message.bytes`."""
    size = _BATCH_HEADER_BYTES + _FIELDS_BYTES_MAX + 3 * _LENGTH_BYTES_MAX + len(key or b"") + len(value or b"")
    for name, content in headers:
        size += 2 * _LENGTH_BYTES_MAX + len(name.encode("utf-8", "surrogateescape")) + len(content or b"")
    return size
