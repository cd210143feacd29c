"""Decodes the common layout of requests, for a whole micro-batch at once.

Most producers send msgpack requests whose `input_data` is one row of float64. msgspec checks the message and returns
the row as raw bytes. If these have `array header + 9 n` bytes, with the float64 marker at every ninth byte, they are
exactly n float64, so numpy reads the rows of all requests in a few passes. All other requests are left to the typed
decoder, which alone raises errors. `test_vectorised.py` shows with mutated messages that both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.inputs import Matrix

FLOAT64_MARKER = 0xCB
ID_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"
"""The bytes that an id may have, as `ID_PATTERN` says."""


def row_header(n_features: int) -> bytes:
    """The msgpack header of an array of this length, in its shortest form."""
    if n_features < 16:
        return bytes([0x90 | n_features])
    if n_features < 65_536:
        return b"\xdc" + n_features.to_bytes(2, "big")
    return b"\xdd" + n_features.to_bytes(4, "big")


def gather(values: Sequence[bytes], n_features: int) -> tuple[Matrix, NDArray[np.bool_]]:
    """Reads rows of float64 from the encoded `input_data` of requests.

    Returns float64 (matching rows, features), for the values that are exactly one row of `n_features` float64, and bool
    (len(values),), which values these are.
    """
    header = row_header(n_features)
    length = len(header) + 9 * n_features
    fits = np.fromiter(map(len, values), np.intp, len(values)) == length
    messages = _as_rows(values if fits.all() else list(compress(values, fits)), length)
    plain = _is_plain(messages, header)
    if not plain.all():
        messages = messages[plain]
        fits[fits] = plain
    return _floats(messages, len(header), n_features), fits


def gather_strided(body: bytes, count: int, n_features: int) -> tuple[Matrix, NDArray[np.bool_] | None] | None:
    """Like `gather`, for `count` concatenated values in `body`; None if they cannot all have the expected length."""
    header = row_header(n_features)
    length = len(header) + 9 * n_features
    if not count or len(body) != count * length:
        return None
    messages = np.frombuffer(body, dtype=np.uint8).reshape(count, length)
    heads = messages[:, : len(header)] == np.frombuffer(header, dtype=np.uint8)
    if heads.all() and (messages[:, len(header) :: 9] == FLOAT64_MARKER).all():
        return _floats(messages, len(header), n_features), None
    plain = _is_plain(messages, header)
    return _floats(messages[plain], len(header), n_features), plain


def valid_ids(ids: Sequence[str], chars_max: int) -> bool:
    """Whether all of `ids` match `ID_PATTERN` and none is too long."""
    if not ids:
        return True
    if not (min(map(len, ids)) >= 1 and max(map(len, ids)) <= chars_max):
        return False
    joined = "".join(ids)
    return joined.isascii() and not joined.encode("ascii").translate(None, ID_BYTES)


def _as_rows(values: Sequence[bytes], length: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), length)


def _is_plain(messages: NDArray[np.uint8], header: bytes) -> NDArray[np.bool_]:
    """Which rows start with `header` and have the float64 marker before every value."""
    head = (messages[:, : len(header)] == np.frombuffer(header, dtype=np.uint8)).all(axis=1)
    marks = (messages[:, len(header) :: 9] == FLOAT64_MARKER).all(axis=1)
    return np.asarray(head & marks, dtype=np.bool_)


def _floats(messages: NDArray[np.uint8], skip: int, n_features: int) -> Matrix:
    """The numbers behind the markers in contiguous `messages`, read in place and in one pass."""
    if not len(messages):
        return np.empty((0, n_features))
    shape, strides = (len(messages), n_features), (messages.shape[1], 9)
    return np.ndarray(shape, ">f8", messages, skip + 1, strides).astype(np.float64)
