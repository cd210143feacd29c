"""Packs the rows of a file into job messages.

The messages depend only on the file and on the model's features. If the model version is known, values are sent by
position: numeric columns as an array, others as lists. An invalid line is sent as a row that cannot be scored, so that
row numbers match the file and every line has a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from inferd.daemon.row_files import FileOptions, Layout, open_row_file
from inferd.jobs import (
    BLOCK_ROWS,
    MESSAGE_BYTES_MAX,
    PackedRows,
    Packer,
)
from inferd.schemas.codecs import JSON
from inferd.schemas.errors import InferenceError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS

INVALID_ROW: list[Any] = []
"""Replaces an invalid line: workers reject it as a row without features."""


@dataclass(slots=True)
class JobRows:
    """The messages of a file, its number of rows if known, and its invalid lines."""

    messages: Iterator[PackedRows]
    count: int | None = None
    first_problems: list[str] = field(default_factory=list)
    """Errors of the first three invalid lines."""
    invalid_count: int = 0

    def add_invalid(self, problem: InferenceError) -> None:
        """Counts an invalid line."""
        self.invalid_count += 1
        if len(self.first_problems) < 3:
            self.first_problems.append(problem.message)


@contextmanager
def open_job_rows(given: str, options: FileOptions, layout: Layout, stdin: BinaryIO) -> Iterator[JobRows]:
    """The rows of the file `given`, or of standard input (`-`). Raises the errors of `open_row_file`."""
    with open_row_file(given, options, layout, stdin, raw_json=True) as file:
        rows = JobRows(iter(()), file.count)
        if file.is_json:
            rows.messages = json_messages(row for block in _replace_invalid(file.blocks, b"[]", rows) for row in block)
        else:
            rows.messages = _packed(_replace_invalid(file.blocks, INVALID_ROW, rows))
        yield rows


def _packed(blocks: Iterable[Any]) -> Iterator[PackedRows]:
    packer = Packer()
    for block in blocks:
        yield from packer.add(block)
    yield from packer.finish()


def _replace_invalid(blocks: Iterable[Any], invalid_row: Any, rows: JobRows) -> Iterator[Any]:
    """The blocks, with `invalid_row` for each invalid line."""
    for block in blocks:
        if isinstance(block, list) and (problems := [row for row in block if isinstance(row, InferenceError)]):
            for problem in problems:
                rows.add_invalid(problem)
            yield [invalid_row if isinstance(row, InferenceError) else row for row in block]
        else:
            yield block


def json_messages(rows: Iterable[bytes], bytes_max: int = MESSAGE_BYTES_MAX) -> Iterator[PackedRows]:
    """Messages of JSON-encoded rows; a message consists of whole blocks if they fit."""
    waiting: list[bytes] = []
    size = 0
    for number, row in enumerate(rows):
        if len(row) > bytes_max:
            raise TooLargeError(f"row {number}: {len(row)} bytes exceed the limit of {bytes_max} for one message")
        if size + len(row) + 1 > bytes_max or len(waiting) == DEFAULT_LIMITS.job_message_rows_max:
            whole = len(waiting) - len(waiting) % BLOCK_ROWS or len(waiting)
            yield _json_message(waiting[:whole])
            waiting = waiting[whole:]
            size = sum(map(len, waiting)) + len(waiting)
        waiting.append(row)
        size += len(row) + 1
    if waiting:
        yield _json_message(waiting)


def _json_message(rows: list[bytes]) -> PackedRows:
    return PackedRows(len(rows), JSON.join(rows), JSON)
