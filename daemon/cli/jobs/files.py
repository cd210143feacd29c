"""Files -> rows of a job, a message at a time.

What a file gives depends on the file alone, and on the model's features.

Where the model's version is known, values go by position: columns of numbers as an array, others as lists. A line that
is no row goes as one that cannot be scored, so that every line keeps its number and has its outcome.
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
from inferd.schemas.errors import InferenceError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS

UNREADABLE_ROW: list[Any] = []
"""Stands for a line that is no row: it is refused as one without features."""


@dataclass(slots=True)
class JobRows:
    """The messages of a file, how many rows it has where that is known, and how many lines were no rows."""

    messages: Iterator[PackedRows]
    count: int | None = None
    unreadable: list[str] = field(default_factory=list)
    """What is wrong with the first of them."""
    unreadable_count: int = 0

    def note(self, problem: InferenceError) -> None:
        """Counts a line that is no row."""
        self.unreadable_count += 1
        if len(self.unreadable) < 3:
            self.unreadable.append(problem.message)


@contextmanager
def open_job_rows(given: str, options: FileOptions, layout: Layout, stdin: BinaryIO) -> Iterator[JobRows]:
    """The rows of the file that `given` names, or of standard input (`-`). Raises what `open_row_file` does."""
    with open_row_file(given, options, layout, stdin, raw_json=True) as file:
        rows = JobRows(iter(()), file.count)
        if file.is_json:
            rows.messages = json_messages(row for block in _readable(file.blocks, b"[]", rows) for row in block)
        else:
            rows.messages = _packed(_readable(file.blocks, UNREADABLE_ROW, rows))
        yield rows


def _packed(blocks: Iterable[Any]) -> Iterator[PackedRows]:
    packer = Packer()
    for block in blocks:
        yield from packer.add(block)
    yield from packer.finish()


def _readable(blocks: Iterable[Any], stand_in: Any, rows: JobRows) -> Iterator[Any]:
    """The blocks, with a row that is refused for each line that is none."""
    for block in blocks:
        if isinstance(block, list) and (problems := [row for row in block if isinstance(row, InferenceError)]):
            for problem in problems:
                rows.note(problem)
            yield [stand_in if isinstance(row, InferenceError) else row for row in block]
        else:
            yield block


def json_messages(rows: Iterable[bytes], bytes_max: int = MESSAGE_BYTES_MAX) -> Iterator[PackedRows]:
    """Messages of rows that are JSON already, of whole blocks where these find room."""
    waiting: list[bytes] = []
    size = 0
    for number, row in enumerate(rows):
        if len(row) > bytes_max:
            raise TooLargeError(f"row {number}: {len(row)} bytes, and {bytes_max} are allowed in one message")
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
    return PackedRows(len(rows), b"[" + b",".join(rows) + b"]", "json")
