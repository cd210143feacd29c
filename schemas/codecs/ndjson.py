"""Splits lines of NDJSON into rows without decoding them."""

from __future__ import annotations

import re

import msgspec

from inferd.schemas.codecs.decoding import DECODE_ERRORS, check_nesting, printable
from inferd.schemas.codecs.json import JSON
from inferd.schemas.errors import MalformedError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEVERAL = re.compile(rb"\[[ \t]*[\[{]")
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode


def rows_of_line(line: bytes) -> list[bytes]:
    """The rows of a stripped line: its items if it is an array of rows, else the line itself, unchecked.

    `MalformedError` for an array of rows that has anything else in it; `TooDeepError`.
    """
    if not _SEVERAL.match(line):
        return [line]
    check_nesting(line, JSON, "an array of rows")
    try:
        rows = [bytes(value).strip() for value in _values(line)]
    except DECODE_ERRORS as error:
        raise MalformedError(f"not JSON: {printable(str(error))}") from None
    if any(row[0] not in b"[{" for row in rows):
        raise MalformedError("an array of rows must contain rows only")
    return rows
