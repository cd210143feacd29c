"""Encodes the state of a job for the table `jobs`: a version byte and one MessagePack array.

A column of numbers is stored as its minimum and the differences from it, in the fewest bytes that fit (0, 1, 2, 4 or
8); equal numbers need none.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import (
    DECODE_ERRORS,
    codec_named,
)
from inferd.schemas.errors import MalformedError
from inferd.schemas.jobs import LABELS_BYTES_MAX, JobError, Missing
from inferd.schemas.limits import Limits
from inferd.streams.jobs.state.chunks import chunks_of
from inferd.streams.jobs.state.state import (
    CHUNK,
    MESSAGE,
    JobState,
    Records,
    read_only,
)

VERSION = 1
_MESSAGE_BYTES = 8 + 4 + 8
_CHUNK_BYTES = 8 + 4 + 1 + 1
_OTHER_BYTES = 24_576
"""Header fields, an error, and ranges of missing messages."""
_RECORDS = ("messages", "chunks")
_PLAIN = tuple(item.name for item in fields(JobState) if item.name not in (*_RECORDS, "barriers_left"))
_OPTIONAL = ("alias_revision", "variant")
"""The last of `_PLAIN`: not stored if all are None, so that states of jobs without alias have the bytes of earlier
workers."""
_STORED_OF_CHUNK = ("result", "failed", "attempt", "done")

Column = tuple[int, int, bytes]
"""The minimum, bytes per difference, the differences."""


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    plain: list[Any]
    barriers_left: bytes
    n_messages: int
    messages: list[Column]
    n_chunks: int
    chunks: list[Column]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


def state_bytes_max(limits: Limits) -> int:
    """Upper bound of the size of a state within `limits`."""
    records = _MESSAGE_BYTES * limits.job_messages_max + _CHUNK_BYTES * limits.job_chunks_max
    return records + LABELS_BYTES_MAX + _OTHER_BYTES


def encode_state(state: JobState) -> bytes:
    """The encoded state; equal states give equal bytes."""
    plain = [getattr(state, name) for name in _PLAIN]
    if all(getattr(state, name) is None for name in _OPTIONAL):
        del plain[-len(_OPTIONAL) :]
    stored = _Stored(
        plain,
        state.barriers_left.to_bytes((state.barriers_left.bit_length() + 7) // 8, "little"),
        len(state.messages),
        [_column(state.messages[name]) for name in MESSAGE.names or ()],
        len(state.chunks),
        [_column(state.chunks[name]) for name in _STORED_OF_CHUNK],
    )
    return bytes([VERSION]) + _encode(stored)


def decode_state(value: bytes) -> JobState:
    """The decoded state; `MalformedError` if it is invalid or of an unknown version."""
    if value[:1] != bytes([VERSION]):
        raise MalformedError(f"state of a job: its version is {value[:1].hex() or 'missing'}, and {VERSION} is known")
    try:
        stored = _decode(memoryview(value)[1:])
        absent = [None] * len(_OPTIONAL) if len(stored.plain) == len(_PLAIN) - len(_OPTIONAL) else []
        plain = dict(zip(_PLAIN, [*stored.plain, *absent], strict=True))
        messages = _records(MESSAGE, MESSAGE.names or (), stored.messages, stored.n_messages)
        return _state(plain, stored, messages)
    except (*DECODE_ERRORS, TypeError) as error:
        raise MalformedError(f"state of a job: {error}") from None


def _state(plain: dict[str, Any], stored: _Stored, messages: Records) -> JobState:
    codec_named(plain["encoding"])
    plain["outputs"] = tuple(plain["outputs"])
    plain["error"] = msgspec.convert(plain["error"], JobError | None)
    plain["missing"] = msgspec.convert(plain["missing"], Missing | None)
    chunks = chunks_of(messages[: plain["next_seq"]], plain["chunk_rows"]) if stored.n_chunks else np.zeros(0, CHUNK)
    if len(chunks) != stored.n_chunks:
        raise ValueError(f"{stored.n_chunks} chunks, and its messages have {len(chunks)}")
    _fill(chunks, _STORED_OF_CHUNK, stored.chunks)
    return JobState(
        **plain,
        barriers_left=int.from_bytes(stored.barriers_left, "little"),
        messages=read_only(messages),
        chunks=read_only(chunks),
    )


def _records(dtype: np.dtype[np.void], names: tuple[str, ...], columns: list[Column], count: int) -> Records:
    records: Records = np.zeros(count, dtype)
    _fill(records, names, columns)
    return records


def _fill(records: Records, names: tuple[str, ...], columns: list[Column]) -> None:
    for name, (least, width, data) in zip(names, columns, strict=True):
        if not len(records):
            continue
        base = np.asarray(least).astype(records[name].dtype)
        if not width:
            records[name] = base
            continue
        offsets = np.frombuffer(data, f"<u{width}").astype(np.uint64)
        records[name] = (offsets + base.astype(np.uint64)).astype(records[name].dtype)


def _column(values: NDArray[Any]) -> Column:
    if not len(values):
        return 0, 0, b""
    least = values.min()
    # Unsigned arithmetic wraps around: differences of any two 64-bit numbers fit.
    offsets = values.astype(np.uint64) - least.astype(np.uint64)
    most = int(offsets.max())
    width = next(width for width in (0, 1, 2, 4, 8) if most < 1 << 8 * width)
    return int(least), width, b"" if not width else offsets.astype(f"<u{width}").tobytes()
