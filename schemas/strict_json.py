"""The structural check of JSON: what the typed decoder accepts silently, and what its errors do not say clearly."""

from __future__ import annotations

import json
import re

from schemas.errors import InferenceError, MalformedError, TooDeepError

# A string that never ends is taken to the end of the data: trying again behind its quote would be quadratic.
_STRING_PATTERN = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_STRING = re.compile(_STRING_PATTERN, re.DOTALL)
# An object key is a string and the colon behind it; everything else that is not a bracket needs no look.
_TOKEN = re.compile(rb"(" + _STRING_PATTERN + rb")[ \t\r\n]*+(:?)|[\[\]{}]", re.DOTALL)
_CONSTANT = re.compile(rb"-?\b(?:NaN|Infinity|nan|inf)\b")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def without_strings(data: bytes) -> bytes:
    """`data` with every string emptied, so that the brackets, commas and colons left are JSON's own."""
    return _STRING.sub(b'""', data)


def check_json(data: bytes, depth_max: int, depth: int = 0) -> None:
    """Return if `data` is UTF-8 without a byte order mark, and no object in it is too deep or repeats a key.

    It does not replace a parser: text that is no JSON may pass. `depth` is the number of containers that `data` itself
    lies in. `MalformedError` or `TooDeepError` name the byte.
    """
    if data.startswith(_BYTE_ORDER_MARKS):
        raise MalformedError("a byte order mark at byte 0: JSON is sent as UTF-8 without one")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {error.start} is not UTF-8: {error.reason}") from None
    _check_tokens(data, depth_max, depth)


def fault_in_json(data: bytes, depth_max: int, depth: int = 0) -> InferenceError | None:
    """What `check_json` raises, or the literal (NaN, Infinity) that is no JSON, or None."""
    try:
        check_json(data, depth_max, depth)
    except InferenceError as fault:
        return fault
    if match := _CONSTANT.search(without_strings(data)):
        return MalformedError(f"{match[0].decode()} is not JSON: a missing value is null")
    return None


def _check_tokens(data: bytes, depth_max: int, depth: int) -> None:
    keys: list[set[str] | None] = []
    """The keys seen of each open container; None for an array."""
    for token in _TOKEN.finditer(data):
        if (string := token[1]) is not None:
            _check_string(string, token.start(), keys[-1] if keys and token[2] else None)
        elif token[0] in b"]}":
            if keys:
                keys.pop()
        elif depth + len(keys) >= depth_max:
            raise TooDeepError(f"the container at byte {token.start()} is nested deeper than {depth_max} levels")
        else:
            keys.append(set() if token[0] == b"{" else None)


def _check_string(string: bytes, at: int, keys: set[str] | None) -> None:
    """Refuse a lone surrogate in `string`, and a key that is already in `keys`."""
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
        raise MalformedError(f"the key {text[:80]!r} at byte {at} comes twice in its object")
    keys.add(text)
