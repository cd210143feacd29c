"""Files -> rows of a job, a block at a time. What a file gives depends on the file alone, and on the model's features.

Where the model's version is known, values go by position: columns of numbers as an array, others as lists. A line that
is no row goes as one that cannot be scored, so that every line keeps its number and has its outcome.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import msgspec

from daemon.cli.row_sources import FORMATS, Format, csv_value, format_of, ndjson_rows, text_lines
from inferd.jobs_packing import BLOCK_ROWS, MESSAGE_BYTES_MAX, PackedRows, Packer
from schemas.errors import InferenceError, MalformedError, SchemaMismatchError, TooLargeError
from schemas.limits import DEFAULT_LIMITS
from schemas.models import Feature, Manifest
from schemas.strict import DECODE_ERRORS

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

PARQUET_ROWS = 8_192
UNREADABLE_ROW: list[Any] = []
"""Stands for a line that is no row: it is refused as one without features."""
_NUMBERS = re.compile(r"[0-9eE+.\-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are laid out for a model: by position where it is certain which version scores them."""

    model: str
    """What the job is opened with."""
    manifest: Manifest | None = None
    by_position: bool = False

    def is_text(self, name: str) -> bool:
        """Whether values of a feature are text, even where they look like numbers."""
        features = () if self.manifest is None else self.manifest.features
        return any(_is_text(feature) for feature in features if feature.name == name)

    def check_columns(self, where: str, columns: Sequence[str]) -> None:
        """`SchemaMismatchError` where every row would be refused for its columns."""
        if self.manifest is None:
            return
        features = {feature.name: feature for feature in self.manifest.features}
        unknown = [name for name in columns if name not in features]
        missing = [name for name, feature in features.items() if name not in columns and feature.required is not False]
        if unknown or missing:
            raise SchemaMismatchError(
                f"{where} has not the columns of {self.manifest.model_id}:{self.manifest.version}:"
                + (f" missing {_named(missing)};" if missing else "")
                + (f" unknown {_named(unknown)} (leave out with --skip-column);" if unknown else "")
            )


@dataclass(slots=True)
class JobRows:
    """The messages of a file, how many rows it has where that is known, and how many lines were no rows."""

    messages: Iterator[PackedRows]
    count: int | None = None
    unreadable: list[str] = field(default_factory=list)
    """What is wrong with the first of them."""
    unreadable_count: int = 0

    def note(self, problem: str) -> None:
        """A line that is no row."""
        self.unreadable_count += 1
        if len(self.unreadable) < 3:
            self.unreadable.append(problem)


def open_job_rows(
    given: str, format_: Format | None, layout: Layout, skip_columns: Sequence[str], stdin: BinaryIO
) -> JobRows:
    """The rows of the file that `given` names, or of standard input (`-`). `click.UsageError` where there is none."""
    if given == "-":
        chosen: Format | None = format_ or "ndjson"
    else:
        if not Path(given).is_file():
            raise click.UsageError(f"{given!r} is no file")
        chosen = format_ or format_of(Path(given))
    if chosen is None:
        raise click.UsageError(f"{given}: say its format with --format {'|'.join(FORMATS)}")
    if chosen == "parquet":
        if given == "-":
            raise click.UsageError("Parquet cannot be read from standard input: name the file")
        return _parquet(Path(given), layout, skip_columns)
    rows = JobRows(iter(()))
    if chosen == "csv":
        lines = _decoded(stdin) if given == "-" else text_lines(Path(given))
        rows.messages = _packed(csv_blocks(lines, given, layout, skip_columns, rows.note))
    else:
        data: Iterable[bytes] = stdin if given == "-" else _lines(Path(given))
        rows.messages = _ndjson(data, skip_columns, rows.note)
    return rows


def _packed(blocks: Iterable[Any]) -> Iterator[PackedRows]:
    packer = Packer()
    for block in blocks:
        yield from packer.add(block)
    yield from packer.finish()


# -------------------------------------------------------------------------------------------------------------- NDJSON


def _ndjson(lines: Iterable[bytes], skip_columns: Sequence[str], note: Callable[[str], None]) -> Iterator[PackedRows]:
    if skip_columns:
        return _packed(_rows_or_stand_ins(ndjson_rows(lines, skip_columns), note))
    return json_messages(_json_lines(lines, note))


def _rows_or_stand_ins(rows: Iterable[Any], note: Callable[[str], None]) -> Iterator[Any]:
    for row in rows:
        if isinstance(row, InferenceError):
            note(row.message)
        yield [UNREADABLE_ROW if isinstance(row, InferenceError) else row]


def _json_lines(lines: Iterable[bytes], note: Callable[[str], None]) -> Iterator[bytes]:
    """Each row as it is written; what is inside of it is looked at where it is scored."""
    decode = msgspec.json.Decoder(list[Any] | dict[str, Any]).decode
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        try:
            decode(text)
        except DECODE_ERRORS as error:
            note(f"line {number}: {error}")
            text = b"[]"
        yield text


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


# ----------------------------------------------------------------------------------------------------------------- CSV


def csv_blocks(
    lines: Iterable[str], where: str, layout: Layout, skip_columns: Sequence[str], note: Callable[[str], None]
) -> Iterator[list[Any]]:
    """Blocks of rows; numbers, `true` and `false`, other text, and an empty field for a missing value."""
    table = csv.reader(lines)
    header = next(table, [])
    if repeated := {name for name in header if header.count(name) > 1}:
        raise MalformedError(f"{where}: the header names {_named(sorted(repeated))} more than once")
    kept = [name for name in header if name not in skip_columns]
    layout.check_columns(where, kept)
    places = [header.index(name) for name in kept]
    texts = [layout.is_text(name) for name in kept]
    arrange = _arrangement(layout, kept)
    while records := list(islice(table, BLOCK_ROWS)):
        good = [fields for fields in records if len(fields) == len(header)]
        columns = list(zip(*good, strict=True)) or [()] * len(header)
        values = [_csv_column(columns[place], text) for place, text in zip(places, texts, strict=True)]
        rows = arrange(values, len(good))
        if len(good) < len(records):
            rows = list(_with_misfits(records, rows, len(header), table.line_num - len(records), note))
        if rows:
            yield rows


def _csv_column(fields: Sequence[str], is_text: bool) -> list[Any]:
    if not is_text and _NUMBERS.fullmatch("".join(fields)):
        try:
            return [float(field) if field else None for field in fields]
        except ValueError:
            pass
    return [csv_value(field, is_text) for field in fields]


def _with_misfits(
    records: list[list[str]], rows: list[Any], width: int, before: int, note: Callable[[str], None]
) -> Iterator[Any]:
    """Lines with too many or too few fields go as they are, and are refused for that; empty lines are no rows."""
    good = iter(rows)
    for number, fields in enumerate(records, before + 1):
        if len(fields) == width:
            yield next(good)
        elif fields:
            note(f"line {number}: {len(fields)} fields, and the header has {width} names")
            yield list(fields)


def _arrangement(layout: Layout, names: Sequence[str]) -> Callable[[Sequence[Sequence[Any]], int], list[Any]]:
    """What makes rows of columns in the order of `names`."""
    if not layout.by_position or layout.manifest is None:
        return lambda columns, _count: [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    place_of = {name: place for place, name in enumerate(names)}
    order = [place_of.get(feature.name) for feature in layout.manifest.features]

    def by_position(columns: Sequence[Sequence[Any]], count: int) -> list[Any]:
        nothing: Sequence[Any] = [None] * count
        return list(zip(*(nothing if place is None else columns[place] for place in order), strict=True))

    return by_position


# ------------------------------------------------------------------------------------------------------------- Parquet


def _parquet(path: Path, layout: Layout, skip_columns: Sequence[str]) -> JobRows:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise click.ClickException("Parquet files need pyarrow: pip install 'inferd[files]'") from error
    try:
        table = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise MalformedError(f"{path} cannot be read as Parquet: {error}") from error
    names = [name for name in table.schema_arrow.names if name not in skip_columns]
    layout.check_columns(str(path), names)
    batches = table.iter_batches(batch_size=PARQUET_ROWS, columns=names)
    if layout.by_position and layout.manifest is not None and _are_numbers(table.schema_arrow, layout.manifest):
        features = layout.manifest.features
        return JobRows(_packed(_matrix(batch, features) for batch in batches), table.metadata.num_rows)
    arrange = _arrangement(layout, names)
    blocks = (arrange([_parquet_column(column, layout, name) for name, column in _columns(batch)], batch.num_rows)
              for batch in batches)  # fmt: skip
    return JobRows(_packed(blocks), table.metadata.num_rows)


def _are_numbers(schema: Any, manifest: Manifest) -> bool:
    """Whether the columns of all features are numbers, and none of them a category."""
    present = [feature for feature in manifest.features if feature.name in schema.names]
    return all(not feature.categories and _is_number(schema.field(feature.name).type) for feature in present)


def _is_number(arrow_type: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_boolean(arrow_type))


def _matrix(batch: RecordBatch, features: Sequence[Feature]) -> Any:
    """(rows, features) of float64, NaN where missing."""
    import numpy as np

    matrix = np.full((batch.num_rows, len(features)), np.nan)
    for place, feature in enumerate(features):
        if feature.name in batch.schema.names:
            matrix[:, place] = _floats(batch.column(feature.name))
    return matrix


def _floats(column: Array) -> Any:
    return column.cast("float64").to_numpy(zero_copy_only=False)


def _columns(batch: RecordBatch) -> Iterator[tuple[str, Array]]:
    yield from zip(batch.schema.names, batch.columns, strict=True)


def _parquet_column(column: Array, layout: Layout, name: str) -> list[Any]:
    from pyarrow import types

    features = () if layout.manifest is None else layout.manifest.features
    is_category = any(feature.name == name and feature.categories for feature in features)
    if types.is_floating(column.type) or (types.is_integer(column.type) and not is_category):
        values: list[Any] = _floats(column).tolist()
        return values
    listed: list[Any] = (column.cast("float64") if types.is_decimal(column.type) else column).to_pylist()
    return listed


def _is_text(feature: Feature) -> bool:
    return bool(feature.categories) and all(isinstance(value, str) for value in feature.categories or ())


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _decoded(stdin: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(stdin):
        yield line.decode("utf-8-sig" if number == 0 else "utf-8", "replace")
