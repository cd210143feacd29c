"""CSV -> blocks of rows.

Python's csv module reads the fields in strict mode: text is unchanged, and a stray quote is an error. Numbers are
exact: an integer that may be a category is not converted to float64 first.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any

from inferd.daemon.row_files.layout import Kind, Layout
from inferd.daemon.row_files.options import FileOptions
from inferd.schemas.errors import InferenceError, MalformedError, SchemaMismatchError

DELIMITERS = ",;\t|"
ROW_NAMES_HINT = (
    ". If the file is from R: write.table writes row names without a name in the header; write it with row.names=FALSE"
)
EXACT_DIGITS = 15
"""Integers of so many digits are the same as float64."""
_NUMBERS = re.compile(r"[0-9eE+.\-]*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column that is read, and its type."""

    name: str
    place: int
    kind: Kind | None
    na: frozenset[str]
    decimal: str

    @property
    def is_text(self) -> bool:
        """Whether fields are used unchanged."""
        return self.kind in ("label", "text")

    def values(self, fields: Sequence[str]) -> list[Any]:
        if not self.is_text and "" in self.na and _NUMBERS.fullmatch("".join(fields)):
            try:
                values: list[Any] = [float(field) if field else None for field in fields]
            except ValueError:
                pass
            else:
                if self.kind == "number" or max(map(len, fields), default=0) <= EXACT_DIGITS:
                    return values
                return [value and _exact(field, value) for field, value in zip(fields, values, strict=True)]
        return [self.value(field) for field in fields]

    def value(self, field: str) -> str | float | int | bool | None:
        """The value of a field."""
        if field in self.na:
            return None
        if self.is_text:
            return field
        text = field.strip()
        if text in self.na:
            return None
        if self.decimal != "." and "." not in text:
            text = text.replace(self.decimal, ".", 1)
        if _NUMBER.fullmatch(text):
            return float(text) if self.kind == "number" else _exact(text, float(text))
        return _BOOLEANS.get(text.lower(), field)


def _exact(text: str, value: float) -> float | int:
    """`value`, or the exact integer if `text` is one of 64 bits."""
    if len(text) > EXACT_DIGITS and _INTEGER.fullmatch(text) and -(2**63) <= (integer := int(text)) < 2**64:
        return integer
    return value


class CsvRows:
    """The rows of one file; its header has been read and fits the model."""

    def __init__(self, lines: Iterator[str], where: str, layout: Layout, options: FileOptions) -> None:
        """Raises `MalformedError` for an invalid header, and the errors of `Layout.check_columns`."""
        self._where, self._layout = where, layout
        first, blank, separator = _first_line(lines, where)
        delimiter = options.delimiter or separator or _delimiter(first, layout)
        self._blank = blank
        self._delimiter = delimiter
        self._table = csv.reader(chain((first,), lines), delimiter=delimiter, strict=True)
        header = self._next(1)[0][0]
        kept = [(place, header[place]) for place in layout.kept(where, header, options.skip_columns)]
        names = [name for _, name in kept]
        layout.check_columns(where, names)
        self._names, self._width = names, len(header)
        self._first_width: int | None = None
        """Number of fields of the first row."""
        self._columns = [
            _Column(name, place, layout.kind(name), layout.na_texts(name, options.na), options.decimal)
            for place, name in kept
        ]

    def blocks(self, block_rows: int) -> Iterator[list[Any]]:
        """Rows of at most `block_rows` lines per block, with an `InferenceError` for each invalid line. Empty lines are
        skipped."""
        while (read := self._next(block_rows))[0]:
            if rows := self._rows(*read):
                yield rows

    def _next(self, count: int) -> tuple[list[list[str]], Sequence[int]]:
        """Records, and the number of the first line of each."""
        before, records = self._table.line_num, list[list[str]]()
        try:
            records.extend(islice(self._table, count))
        except csv.Error as error:
            raise self._broken(error, _begins(self._blank + before + 1, records)[-1]) from None
        first, last = self._blank + before + 1, self._blank + self._table.line_num
        if last - first + 1 == len(records):
            return records, range(first, last + 1)
        return records, _begins(first, records)[:-1]

    def _broken(self, error: csv.Error, line: int) -> MalformedError:
        return MalformedError(
            f"{self._where}, lines {line} to {self._blank + self._table.line_num}: a quoted value is not closed, or"
            f' has text after its closing quote ({error}); inside quotes, write a quote twice: "". If the values are'
            f" not separated by {self._delimiter!r}, say by what: --delimiter ' '"
        )

    def _rows(self, records: Sequence[list[str]], numbers: Sequence[int]) -> list[Any]:
        problems = self._problems(records, numbers)
        good = [place for place, fields in enumerate(records) if fields and place not in problems]
        fields_of = list(zip(*(records[place] for place in good), strict=True)) or [()] * self._width
        columns = [column.values(fields_of[column.place]) for column in self._columns]
        self._reject_decimal_commas(columns, [numbers[place] for place in good])
        rows = iter(self._layout.rows(self._names, columns, len(good)))
        return [problems.get(place) or next(rows) for place, fields in enumerate(records) if fields]

    def _problems(self, records: Sequence[list[str]], numbers: Sequence[int]) -> dict[int, InferenceError]:
        """Errors of records, by index."""
        problems: dict[int, InferenceError] = {}
        if self._first_width is None:
            self._first_width = next((len(fields) for fields in records if fields), None)
        hint = ROW_NAMES_HINT if self._first_width == self._width + 1 else ""
        for place, fields in enumerate(records):
            if fields and len(fields) != self._width:
                problems[place] = SchemaMismatchError(
                    f"line {numbers[place]}: {len(fields)} fields, and the header has {self._width} names{hint}"
                )
        if not isinstance(numbers, range):
            problems |= self._several_lines(records, numbers, problems)
        return problems

    def _several_lines(
        self, records: Sequence[list[str]], numbers: Sequence[int], others: Container[int]
    ) -> dict[int, InferenceError]:
        return {
            place: MalformedError(f"line {numbers[place]}: {column.name!r} has several lines: is a quote missing?")
            for column in self._columns
            if column.kind != "text"
            for place, fields in enumerate(records)
            if fields and place not in others and _breaks(fields[column.place])
        }

    def _reject_decimal_commas(self, columns: Sequence[Sequence[Any]], numbers: Sequence[int]) -> None:
        for column, values in zip(self._columns, columns, strict=True):
            if column.is_text or not (column.kind == "number" or self._delimiter == ";"):
                continue
            for value, number in zip(values, numbers, strict=True):
                if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
                    raise MalformedError(
                        f"{self._where}, line {number}: {value!r} in column {column.name!r} has a comma:"
                        " give --decimal , if it is a decimal comma, and write thousands without commas"
                    )


def _begins(line: int, records: Sequence[list[str]]) -> list[int]:
    """The number of the first line of each record, and of the line after the last one; the first record begins at
    `line`."""
    return list(accumulate((1 + sum(map(_breaks, fields)) for fields in records), initial=line))


def _breaks(field: str) -> int:
    return field.count("\n") or field.count("\r")


def _first_line(lines: Iterator[str], where: str) -> tuple[str, int, str | None]:
    """The header line, the number of lines before it, and the delimiter that Excel's `sep=` line names."""
    separator = None
    for blank, line in enumerate(lines):
        if match := _SEPARATOR_LINE.fullmatch(line):
            separator = match[1]
        elif line.strip():
            return line, blank, separator
    raise MalformedError(f"{where} is empty: its first line must have the column names")


def _delimiter(header: str, layout: Layout) -> str:
    """The delimiter that yields the most features; of several, the one that yields the most names."""

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([header], delimiter=delimiter, strict=True))
        except csv.Error:
            return 0, 0
        return sum(layout.kind(name) is not None for name in names), len(names)

    return max(DELIMITERS, key=fit)
