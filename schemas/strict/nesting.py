"""How deep containers nest, at C speed and the same on every Python.

Decoders recurse, and interpreters allow different depths of recursion: RecursionError is no evidence. 1 MB of the most
hostile MessagePack takes some 10 ms here, and of JSON some 50 ms.
"""

from __future__ import annotations

import re
from itertools import accumulate

import msgpack

from inferd.schemas.errors import TooDeepError
from inferd.schemas.headers import Encoding

NESTING_MAX = 500
"""Levels that every decoder reads, on every Python that is supported, from wherever it is called."""

_SKIPPER_LEVELS = 1_024
"""Levels that msgpack's `Unpacker.skip` follows: a constant of its C code."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_UP_OR_DOWN = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")


def nested_deeper(data: bytes, encoding: Encoding, levels: int) -> bool:
    """Whether a container of `data` lies in `levels` others, ahead of whatever makes the bytes unreadable."""
    return _msgpack_deeper(data, levels) if encoding == "msgpack" else _json_deeper(data, levels)


def check_nesting(data: bytes, encoding: Encoding, what: str, levels: int = NESTING_MAX) -> None:
    """`TooDeepError` where `data` nests deeper than `levels`."""
    if nested_deeper(data, encoding, levels):
        raise TooDeepError(f"{what}: containers are nested deeper than {levels} levels")


def _msgpack_deeper(data: bytes, levels: int) -> bool:
    # Inside of so many arrays, what nests deeper than `levels` is too much for it.
    surplus = _SKIPPER_LEVELS - levels
    unpacker = msgpack.Unpacker(max_buffer_size=surplus + len(data))
    unpacker.feed(b"\x91" * surplus)
    unpacker.feed(data)
    try:
        unpacker.skip()
    except msgpack.StackError:
        return True
    except (msgpack.UnpackException, ValueError):
        return False
    return False


def _json_deeper(data: bytes, levels: int) -> bool:
    if data.count(b"[") + data.count(b"{") <= levels:
        return False
    steps = _STRING.sub(b"", data).translate(_UP_OR_DOWN, _NO_BRACKET)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > levels
