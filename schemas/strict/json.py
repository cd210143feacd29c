"""The structural check of JSON: finds faults that the typed decoder accepts or reports unclearly."""

from __future__ import annotations

import json
import re
from typing import Any

from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)

# An unterminated string extends to the end of the data: rescanning after its quote would take quadratic time.
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
# An object key is a string followed by a colon. Apart from strings, only brackets and these literals matter.
_TOKEN = re.compile(
    rb"(" + _STRING + rb")[ \t\r\n]*+(:?)|[\[\]{}]|-?(?:NaN|nan|Infinity|inf)",
    re.DOTALL,
)
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NO_PUNCTUATION = bytes(set(range(256)) - set(b'",[{'))


def punctuation(data: bytes) -> bytes:
    """The commas and opening brackets outside of strings in well-formed `data`."""
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(unescaped.translate(None, _NO_PUNCTUATION).split(b'"')[::2])


def repeats_key(data: bytes) -> bool:
    """Whether an object in well-formed `data` has a duplicate key, or `data` is nested too deep to tell."""
    try:
        json.loads(data.decode(), object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return True
    return False


def fault_in_json(data: bytes, depth_max: int, depth: int, values_max: int) -> InferenceError | None:
    """The fault in `data`, naming the byte, or None.

    `MalformedError` for a byte order mark, bytes that are not UTF-8, a duplicate key, a lone surrogate, NaN and
    infinity; `TooDeepError`; `TooLargeError` after `values_max` strings and brackets without a fault. This is not a
    parser: text that is not JSON may pass. `depth` is the number of containers around `data`.
    """
    if data.startswith(_BYTE_ORDER_MARKS):
        return MalformedError("a byte order mark at byte 0: JSON is sent as UTF-8 without one")
    try:
        data.decode()
        _check_tokens(data, depth_max, depth, values_max)
    except UnicodeDecodeError as error:
        return MalformedError(f"byte {error.start} is not UTF-8: {error.reason}")
    except InferenceError as fault:
        return fault
    return None


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key appears twice")


def _check_tokens(data: bytes, depth_max: int, depth: int, values_max: int) -> None:
    keys: list[set[str] | None] = []
    """The keys so far of each open object; None for an array."""
    for count, token in enumerate(_TOKEN.finditer(data)):
        text = token[0]
        if count >= values_max:
            raise TooLargeError(f"more than {values_max} strings and brackets")
        if (string := token[1]) is not None:
            _check_string(string, token.start(), keys[-1] if keys and token[2] else None)
        elif text in b"]}":
            if keys:
                keys.pop()
        elif text not in b"[{":
            raise MalformedError(f"{text.decode()} at byte {token.start()} is not JSON: a missing value is null")
        elif depth + len(keys) >= depth_max:
            raise TooDeepError(f"the container at byte {token.start()} is nested deeper than {depth_max} levels")
        else:
            keys.append(set() if text == b"{" else None)


def _check_string(string: bytes, at: int, keys: set[str] | None) -> None:
    """Reject a lone surrogate in `string`, and a key that is already in `keys`."""
    if keys is None and b"\\u" not in string:
        return
    try:
        text: str = json.loads(string.decode())
        text.encode()
    except UnicodeEncodeError:
        raise MalformedError(f"the string at byte {at} has a lone surrogate escape") from None
    except ValueError as error:
        raise MalformedError(f"the string at byte {at} is not JSON: {error}") from None
    if keys is None:
        return
    if text in keys:
        raise MalformedError(f"the key {text[:80]!r} at byte {at} appears twice in its object")
    keys.add(text)
