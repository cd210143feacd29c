"""Sources of rows to predict: the argument itself, a file, or standard input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from inferd.daemon.row_files import GZIP, FileOptions, Layout, open_row_file
from inferd.schemas.codecs import (
    DECODE_ERRORS,
    JSON,
    printable,
    structural_fault,
)
from inferd.schemas.errors import InferenceError, MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS

Row = list[Any] | dict[str, Any]
"""Values in feature order, or by feature name."""
Rows = Iterator[Row | InferenceError]
"""A row that cannot be parsed is represented by its error."""


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows, and their number if known."""

    rows: Rows
    count: int | None
    waits: bool = False
    """Whether reading may have to wait for the producer of standard input."""


@contextmanager
def open_rows(given: str, options: FileOptions, layout: Layout, stdin: BinaryIO) -> Iterator[RowSource]:
    """The rows of `given`: a JSON row, a file, or `-` for standard input.

    Raises `click.UsageError` if it is none of these, and the errors of `open_row_file`.
    """
    if given.lstrip()[:1] in ("[", "{"):
        rows = _rows_of_argument(given)
        yield RowSource(iter(rows), len(rows))
        return
    if given != "-" and not Path(given).is_file():
        raise click.UsageError(f"{given!r} is neither a file nor a JSON row such as '[1, 2.5]' or '{{\"age\": 41}}'")
    with open_row_file(given, options, layout, stdin, live=True) as file:
        count = _lines_in(given) if file.count is None else file.count
        yield RowSource((row for block in file.blocks for row in block), count, waits=given == "-")


def _lines_in(given: str) -> int | None:
    """Approximate number of rows of an uncompressed text file."""
    if given == "-":
        return None
    with Path(given).open("rb") as file:
        start = file.peek(2)[:2]
        return None if start == GZIP else sum(block.count(b"\n") for block in iter(partial(file.read, 1_048_576), b""))


def _rows_of_argument(given: str) -> list[Row | InferenceError]:
    try:
        data = _strict_json(given.encode())
    except InferenceError as error:
        raise click.UsageError(f"the row is not valid JSON: {error.message}") from error
    if isinstance(data, list) and data and isinstance(data[0], list | dict):
        return data
    return [data]


def _strict_json(data: bytes) -> Any:
    """Decodes JSON. Raises `InferenceError` if it is invalid, repeats a key, or is nested too deeply."""
    try:
        value = msgspec.json.decode(data)
    except DECODE_ERRORS as error:
        raise MalformedError(printable(str(error))) from None
    if fault := structural_fault(data.strip(), JSON, DEFAULT_LIMITS.depth_max):
        raise fault
    return value
