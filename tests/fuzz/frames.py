"""Records with key and headers, as one run of bytes that a fuzzer can change anywhere."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[str, bytes | None]]
NONE = 0xFFFF


def pack_headers(headers: Headers) -> bytes:
    """Encodes a byte with the number of headers, then name and value of each, prefixed by their lengths."""
    parts = [bytes([min(len(headers), 255)])]
    for name, value in headers[:255]:
        raw = name.encode("utf-8", "surrogateescape")[:255]
        length = NONE if value is None else min(len(value), NONE - 1)
        parts += [bytes([len(raw)]), raw, length.to_bytes(2, "big"), (value or b"")[: NONE - 1]]
    return b"".join(parts)


def unpack_headers(data: bytes, at: int = 0) -> tuple[list[tuple[str, bytes | None]], int]:
    """The headers at `at`, and the offset of their end; truncated values are as short as the input."""
    headers: list[tuple[str, bytes | None]] = []
    count, at = (data[at] if at < len(data) else 0), at + 1
    for _ in range(count):
        if at >= len(data):
            break
        end = at + 1 + data[at]
        name = data[at + 1 : end].decode("utf-8", "surrogateescape")
        length, at = int.from_bytes(data[end : end + 2], "big"), end + 2
        headers.append((name, None if length == NONE else data[at : at + length]))
        at += 0 if length == NONE else length
    return headers, at


def pack_record(value: bytes, headers: Headers = (), key: bytes | None = None) -> bytes:
    """The key with its length prefix (255: none), headers, and the remaining bytes as value."""
    short = b"\xff" if key is None else bytes([min(len(key), 254)]) + key[:254]
    return short + pack_headers(headers) + value


def unpack_record(data: bytes) -> tuple[bytes, list[tuple[str, bytes | None]], bytes | None]:
    """Value, headers and key."""
    length = data[0] if data else 255
    at = 1 if length == 255 else 1 + length
    headers, end = unpack_headers(data, at)
    return data[end:], headers, None if length == 255 else data[1:at]
