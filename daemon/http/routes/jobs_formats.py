"""Content negotiation of job results: NDJSON, or CSV and Parquet converted from its lines."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from aiohttp import hdrs, web

from inferd.daemon.http.core import NotAcceptableError
from inferd.daemon.printable import printable

if TYPE_CHECKING:
    from pyarrow import DataType, Table

ResultFormat = Literal["ndjson", "csv", "parquet"]
NDJSON = "application/x-ndjson"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
FORMATS: dict[str, ResultFormat] = {NDJSON: "ndjson", CSV: "csv", PARQUET: "parquet"}
"""By media type; the first one wins if the caller accepts several equally."""
CONTENT_TYPES: dict[ResultFormat, str] = {"ndjson": NDJSON, "csv": f"{CSV}; charset=utf-8", "parquet": PARQUET}
ERROR_COLUMNS = ("error_code", "error_message")
GROUP_ROWS, GROUP_BYTES = 65_536, 8 * 1_048_576
"""A Parquet row group is written once it has this many rows or bytes."""
UNTYPED_ROWS_MAX = 65_536
"""After this many rows without a value of an output, its column becomes float64."""
_lines = msgspec.json.Decoder(dict[str, Any]).decode_lines
_json = msgspec.json.Encoder().encode


def accepted_format(request: web.Request) -> ResultFormat:
    """The format that the header `accept` prefers; raises `NotAcceptableError` if it names no supported format."""
    named = ",".join(request.headers.getall(hdrs.ACCEPT, ["*/*"])).lower()
    qualities = dict(_quality(item) for item in named.split(","))
    best = max(FORMATS, key=lambda media_type: _quality_of(media_type, qualities))
    if _quality_of(best, qualities) <= 0:
        raise NotAcceptableError(f"header accept: {printable(named, 80)}; supported: {', '.join(FORMATS)}")
    return FORMATS[best]


def _quality(item: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip() for part in item.split(";"))
    given = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
    try:
        return media_type, float(given[0]) if given else 1.0
    except ValueError:
        return media_type, 0.0


def _quality_of(media_type: str, qualities: dict[str, float]) -> float:
    """The quality of the most specific range that matches the media type (RFC 9110, section 12.5.1)."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((qualities[name] for name in ranges if name in qualities), 0.0)


async def csv_pieces(lines: AsyncIterator[bytes], outputs: Sequence[str]) -> AsyncIterator[bytes]:
    """CSV with a header: `row`, a column per output (lists as JSON), `error_code` and `error_message`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", *outputs, *ERROR_COLUMNS))
    async for piece in lines:
        for line in _lines(piece):
            writer.writerow((line["row"], *(_cell(line.get(output)) for output in outputs), *_error(line)))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    if left := text.getvalue():
        yield left.encode()


def _cell(value: Any) -> Any:
    return _json(value).decode() if isinstance(value, list | dict | bool) else value


def _error(line: dict[str, Any]) -> tuple[str | None, str | None]:
    error = line.get("error")
    return (None, None) if error is None else (error["code"], error["message"])


async def parquet_pieces(lines: AsyncIterator[bytes], outputs: Sequence[str]) -> AsyncIterator[bytes]:
    """A Parquet file with the same columns. Raises `NotAcceptableError` if pyarrow is missing or values do not fit."""
    file = await asyncio.to_thread(_open_parquet, outputs)
    async for piece in lines:
        if written := await asyncio.to_thread(file.add, _lines(piece)):
            yield written
    yield await asyncio.to_thread(file.finish)


def _open_parquet(outputs: Sequence[str]) -> ParquetFile:
    try:
        import pyarrow  # noqa: F401  # checks that it is installed
    except ImportError:
        raise NotAcceptableError(
            f"header accept: Parquet is not available, because pyarrow is not installed on this worker (pip install"
            f" 'inferd[files]'); available: {NDJSON}, {CSV}"
        ) from None
    return ParquetFile(outputs)


class ParquetFile:
    """A Parquet file that is written, and returned, one row group at a time."""

    def __init__(self, outputs: Sequence[str]) -> None:
        self._outputs = outputs
        self._sink = _Sink()
        self._types: dict[str, DataType] = {}
        self._untyped: list[dict[str, Any]] = []
        self._tables: list[Table] = []
        self._writer: Any = None

    def add(self, rows: list[dict[str, Any]]) -> bytes:
        """Adds rows; returns the bytes written since the last call."""
        self._untyped += rows
        if not self._types and len(self._untyped) < UNTYPED_ROWS_MAX and not self._outputs_known():
            return b""
        self._add_table()
        if sum(map(len, self._tables)) >= GROUP_ROWS or sum(table.nbytes for table in self._tables) >= GROUP_BYTES:
            self._write()
        return self._sink.taken()

    def finish(self) -> bytes:
        """Ends the file; returns its remaining bytes."""
        self._add_table()
        self._write()
        self._writer.close()
        return self._sink.taken()

    def _outputs_known(self) -> bool:
        return all(any(row.get(output) is not None for row in self._untyped) for output in self._outputs)

    def _add_table(self) -> None:
        rows, self._untyped = self._untyped, []
        columns: dict[str, list[Any]] = {"row": [row["row"] for row in rows]}
        columns |= {output: [row.get(output) for row in rows] for output in self._outputs}
        errors = [_error(row) for row in rows]
        columns |= {name: [error[place] for error in errors] for place, name in enumerate(ERROR_COLUMNS)}
        self._tables.append(self._table(columns))

    def _table(self, columns: dict[str, list[Any]]) -> Table:
        import pyarrow

        if not self._types:
            found = {name: pyarrow.infer_type(columns[name]) for name in self._outputs}
            numbers = {name: pyarrow.float64() for name, type_ in found.items() if type_ == pyarrow.null()}
            errors = dict.fromkeys(ERROR_COLUMNS, pyarrow.string())
            self._types = {"row": pyarrow.int64(), **found, **numbers, **errors}
        try:
            return pyarrow.table({name: pyarrow.array(values, self._types[name]) for name, values in columns.items()})
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise NotAcceptableError(
                f"the results do not fit the columns of a Parquet file ({error}): accept {NDJSON} instead"
            ) from None

    def _write(self) -> None:
        import pyarrow
        from pyarrow import parquet

        tables, self._tables = self._tables, []
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._sink, tables[0].schema)
        if tables:
            self._writer.write_table(pyarrow.concat_tables(tables))


class _Sink(io.RawIOBase):
    """Buffers written bytes until `taken` returns them."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._at += len(piece)
        return len(piece)

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
