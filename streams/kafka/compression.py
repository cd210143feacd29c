"""Decompression of record batches within a limit of memory, whatever the compressed bytes claim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cramjam

from inferd.schemas.errors import MalformedError, TooLargeError

_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_EXPANDERS: dict[int, Any] = {_GZIP: cramjam.gzip, _LZ4: cramjam.lz4, _ZSTD: cramjam.zstd}
_USUAL_RATIO = 16
_OUT_OF_ROOM = "failed to write whole buffer"
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


def decompress(codec: int, data: bytes, bytes_max: int) -> bytes:
    """The plain records of a batch; `codec`: its number in the attributes of the batch.

    `TooLargeError` if they have more than `bytes_max` bytes, before that much is allocated; `MalformedError` if they do
    not decompress.
    """
    if codec == _SNAPPY:
        return _decompress_snappy(data, bytes_max)
    if codec not in _EXPANDERS:
        raise MalformedError(f"record batch: compression codec {codec} is unknown")
    room = min(bytes_max, max(65_536, _USUAL_RATIO * len(data)))
    while True:
        buffer = bytearray(room)
        try:
            size = _EXPANDERS[codec].decompress_into(data, buffer)
        except cramjam.DecompressionError as error:
            if _OUT_OF_ROOM not in str(error):
                raise MalformedError(f"record batch: it does not decompress: {str(error)[:200]}") from None
            if room == bytes_max:
                raise _too_large(len(data), bytes_max) from None
            room = min(bytes_max, _USUAL_RATIO * room)
        else:
            return bytes(memoryview(buffer)[:size])


def _decompress_snappy(data: bytes, bytes_max: int) -> bytes:
    """Each block of snappy begins with its decompressed size."""
    blocks = list(_snappy_blocks(data))
    try:
        if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > bytes_max:
            raise _too_large(len(data), bytes_max)
        return b"".join(map(bytes, map(cramjam.snappy.decompress_raw, blocks)))
    except (cramjam.DecompressionError, ValueError) as error:
        raise MalformedError(f"record batch: it does not decompress: {str(error)[:200]}") from None


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    """The compressed blocks: one, or several in the framing of the Java library.

    `MalformedError` if the last one, or its length, is truncated: aiokafka's own reader raises `struct.error` there.
    """
    if not data.startswith(_XERIAL_MAGIC):
        yield data
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "big")
        if max(start, at) > len(data):
            raise MalformedError(f"record batch: it does not decompress: a block ends at byte {at} of {len(data)}")
        yield data[start:at]


def _too_large(size: int, bytes_max: int) -> TooLargeError:
    return TooLargeError(f"record batch: its {size} bytes expand to more than the limit of {bytes_max}")
