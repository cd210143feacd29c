"""How many bytes a record takes on the wire of Kafka.

Follows the record batch format v2, https://kafka.apache.org/documentation/#recordbatch.
"""

from __future__ import annotations

from collections.abc import Iterable

_BATCH_HEADER_BYTES = 61
_LENGTH_BYTES_MAX = 5
"""Of a length or a count, which are varints."""
_FIELDS_BYTES_MAX = 2 * _LENGTH_BYTES_MAX + 1 + 10
"""Length, offset, attributes and timestamp of a record."""


def record_bytes(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> int:
    """What a batch with this one record has at most, uncompressed: brokers hold that against `max.message.bytes`."""
    size = _BATCH_HEADER_BYTES + _FIELDS_BYTES_MAX + 3 * _LENGTH_BYTES_MAX + len(key or b"") + len(value or b"")
    for name, content in headers:
        size += 2 * _LENGTH_BYTES_MAX + len(name.encode("utf-8", "surrogateescape")) + len(content or b"")
    return size
