"""JSON. Its structural check finds faults that the typed decoder accepts or reports unclearly."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from inferd.schemas.codecs.codec import HOLE, Codec, Kind, Layout
from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)
from inferd.schemas.limits import Limits

# An unterminated string extends to the end of the data: rescanning after its quote would take quadratic time.
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
# An object key is a string followed by a colon. Apart from strings, only brackets and these literals matter.
_TOKEN = re.compile(
    rb"(" + _STRING + rb")[ \t\r\n]*+(:?)|[\[\]{}]|-?(?:NaN|nan|Infinity|inf)",
    re.DOTALL,
)
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NO_PUNCTUATION = bytes(set(range(256)) - set(b'",[{'))
_HEAD = re.compile(rb"[ \t\r\n]*+([\[{])[ \t\r\n]*+(.?)", re.DOTALL)
_KINDS: dict[bytes, Kind] = {b"[": "array", b"{": "map"}
_QUOTED = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_UP_OR_DOWN = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_INTEGER_MAX = int(sys.float_info.max)
_DIGITS_MAX = 308
"""Every integer with at most this many digits is within the range of float64."""
_NUMBER = re.compile(_STRING + rb"|(-?[0-9][0-9.eE+-]*)", re.DOTALL)
_encode = msgspec.json.Encoder().encode


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


def number_beyond_float64(data: bytes) -> MalformedError | None:
    """The error that names the first number in `data` that float64 cannot hold; None if there is none."""
    for number in _NUMBER.finditer(data):
        text = number[1]
        if text is None:
            continue
        try:
            fits = math.isfinite(float(text))
        except ValueError:
            continue
        if not fits:
            shown = text[:40].decode() + ("…" if len(text) > 40 else "")
            return MalformedError(f"the number {shown} at byte {number.start()} is beyond float64")
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


def _nested_deeper(data: bytes, levels: int) -> bool:
    if data.count(b"[") + data.count(b"{") <= levels:
        return False
    steps = _QUOTED.sub(b"", data).translate(_UP_OR_DOWN, _NO_BRACKET)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > levels


def _kinds(data: bytes) -> tuple[Kind, Kind]:
    head = _HEAD.match(data)
    return (_KINDS[head[1]], _KINDS.get(head[2], "scalar")) if head else ("scalar", "scalar")


def _array(count: int, items: bytes) -> bytes:
    return b"[" + items + b"]"


def _map_pieces(fields: Sequence[tuple[str, Any]]) -> list[bytes]:
    pieces = [b"{"]
    for place, (key, value) in enumerate(fields):
        pieces[-1] += b"," * (place > 0) + _encode(key) + b":"
        if value is HOLE:
            pieces.append(b"")
        else:
            pieces[-1] += _encode(value)
    pieces[-1] += b"}"
    return pieces


def _repeats_key(data: bytes, keys: int, inner: Iterable[msgspec.Raw | str] = ()) -> bool:
    """Without escapes, each key has one colon. If there are as many colons as keys, in addition to those in `inner`, no
    key is repeated; other counts need a full check."""
    colons = data.count(b":")
    for value in inner:
        colons -= value.count(":") if isinstance(value, str) else bytes(value).count(b":")
    if colons == keys and b"\\" not in data:
        return False
    for value in inner:
        # A scalar has no keys, and its bytes may appear in front of it, as a key.
        if isinstance(value, msgspec.Raw) and (encoded := bytes(value))[:1] in (b"[", b"{"):
            data = data.replace(encoded, b"0", 1)
    return repeats_key(data)


def _claimed_keys(data: bytes, layout: Layout, limits: Limits) -> None:
    """Rejects more rows or values than allowed, counted by the punctuation outside of strings."""
    if len(data) <= 2 * min(limits.rows_max, limits.features_max, limits.values_max):
        return  # every row and every value takes at least two bytes
    if _excess(data, layout, limits) and (excess := _excess(punctuation(data), layout, limits)):
        raise TooLargeError(f"input_data: {excess} are allowed")


def _excess(data: bytes, layout: Layout, limits: Limits) -> str | None:
    containers = data.count(b"[") + data.count(b"{")
    values = data.count(b",") + 1
    if containers > limits.rows_max + 1:
        return f"{containers} arrays and objects; at most {limits.rows_max} rows"
    if layout in {"row", "named_row"} and values > limits.features_max:
        return f"{values} features; at most {limits.features_max}"
    # A row without features adds a comma but no value.
    if values > limits.values_max + limits.rows_max:
        return f"{values} values; at most {limits.values_max}"
    return None


def _check_numbers(data: bytes, rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
    """MessagePack cannot represent integers beyond the range of float64; JSON can."""
    if len(data) <= _DIGITS_MAX:
        return
    for index, row in enumerate(rows):
        for feature, value in row.items() if isinstance(row, Mapping) else enumerate(row):
            if type(value) is int and abs(value) > _INTEGER_MAX:
                shown = repr(feature[:80]) if isinstance(feature, str) else feature
                raise InvalidValueError(f"input_data: row {index}, feature {shown} is beyond float64")


JSON = Codec(
    name="json",
    title="JSON",
    content_type="application/json",
    binary=False,
    non_finite=False,
    separator=b",",
    number_bytes_max=25,
    encode=_encode,
    encode_sorted=msgspec.json.Encoder(order="deterministic").encode,
    decoder=lambda type_: msgspec.json.Decoder(type_).decode,
    kinds=_kinds,
    array=_array,
    claimed_length=lambda data: None,
    map_pieces=_map_pieces,
    fault=fault_in_json,
    nested_deeper=_nested_deeper,
    repeats_key=_repeats_key,
    claimed_keys=_claimed_keys,
    check_numbers=_check_numbers,
    mentions=lambda data, key: key in data or b"\\" in data,
    resembles=lambda data: data.lstrip()[:1] == b"{",
    separates_numbers=True,
)
