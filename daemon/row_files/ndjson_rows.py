"""NDJSON -> blocks of rows. A line has one row, or an array of rows as `df.to_json(orient="records")` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from inferd.daemon.row_files.layout import Layout
from inferd.schemas.codecs import (
    DECODE_ERRORS,
    JSON,
    find_fault,
    printable,
    rows_of_line,
)
from inferd.schemas.errors import InferenceError, MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS

_ROW = re.compile(rb"\{[ \t]*[^} \t]|\[[ \t]*[^\[{\] \t]")
"""The start of a row that is neither empty nor an array of rows."""
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_check = msgspec.json.Decoder(list[Any] | dict[str, Any]).decode


def ndjson_blocks(
    lines: Iterator[bytes], where: str, skip_columns: Sequence[str], block_rows: int, *, raw: bool
) -> Iterator[list[Any]]:
    """Rows of at most `block_rows` lines per block, decoded unless `raw`, with an `InferenceError` for each invalid
    line or row. Empty lines are skipped."""
    read, first = _raw_row if raw else _row, 1
    while block := list(islice(lines, block_rows)):
        stripped = [line.strip() for line in block]
        if raw and _are_rows(stripped):
            rows: list[Any] = stripped
        else:
            numbered = enumerate(stripped, first)
            rows = [row for number, line in numbered for row in _rows(line, number, where, read)]
        if skip_columns and first == 1 and block_rows > 1:
            _check_skipped(rows, where, skip_columns)
        first += len(block)
        yield [_without(row, skip_columns) for row in rows] if skip_columns else rows


def _check_skipped(rows: list[Any], where: str, skip_columns: Sequence[str]) -> None:
    """`SchemaMismatchError` if none of `rows` has one of the columns."""
    if names := list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)):
        Layout.kept(where, names, skip_columns)


def _are_rows(lines: list[bytes]) -> bool:
    """Whether every line is obviously one row."""
    try:
        cut = list(map(bytes, _values(b"[%b]" % b",".join(lines))))
    except DECODE_ERRORS:
        return False
    return cut == lines and all(map(_ROW.match, lines))


def _rows(line: bytes, number: int, where: str, read: Any) -> Iterator[Any]:
    if number == 1 and line in (b"[", b"{"):
        raise MalformedError(f"{where} is one JSON document of several lines: write one row per line, as `jq -c '.[]'`")
    try:
        for row in rows_of_line(line) if line else ():
            yield read(row, number)
    except InferenceError as error:
        yield type(error)(f"line {number}: {error.message}")


def _raw_row(row: bytes, number: int) -> bytes | InferenceError:
    """The row as bytes; its values are checked when it is scored."""
    try:
        value = _check(row)
    except DECODE_ERRORS as error:
        return _no_row(row, number, error)
    return row if value else _empty(number)


def _row(row: bytes, number: int) -> Any:
    try:
        value = _check(row)
    except DECODE_ERRORS as error:
        return _no_row(row, number, error)
    if fault := find_fault(row, JSON, DEFAULT_LIMITS.depth_max):
        return type(fault)(f"line {number}: {fault.message}")
    return value or _empty(number)


def _empty(number: int) -> InferenceError:
    return MalformedError(f"line {number}: a row without values")


def _no_row(row: bytes, number: int, error: Exception) -> InferenceError:
    if row[:1] not in b"[{":
        return MalformedError(f"line {number}: expected a row: a JSON array or object")
    return MalformedError(f"line {number}: {printable(str(error))}")


def _without(row: Any, columns: Sequence[str]) -> Any:
    return {name: value for name, value in row.items() if name not in columns} if isinstance(row, dict) else row
