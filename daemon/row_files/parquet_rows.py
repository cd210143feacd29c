"""Parquet -> blocks of rows. Integers and decimals stay exact if they may be categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferd.daemon.row_files.layout import Layout
from inferd.daemon.row_files.options import FileOptions
from inferd.schemas.codecs import printable
from inferd.schemas.errors import InvalidValueError, MalformedError
from inferd.schemas.models import Feature

if TYPE_CHECKING:
    from pyarrow import Array, DataType, RecordBatch


class ParquetRows:
    """The rows of one file; its columns have been read and fit the model."""

    def __init__(self, path: Path, layout: Layout, options: FileOptions) -> None:
        """Raises `MalformedError` if the file is not Parquet, `InvalidValueError` for an unsupported column type, and
        the errors of `Layout.check_columns`."""
        self._where, self._layout = str(path), layout
        with self._named():
            self._file = _parquet().ParquetFile(path)
            schema = self._file.schema_arrow
        self._names = [schema.names[place] for place in layout.kept(self._where, schema.names, options.skip_columns)]
        layout.check_columns(self._where, self._names)
        types = {name: schema.field(name).type for name in self._names}
        for name, arrow_type in types.items():
            _check_type(arrow_type, name, self._where)
        self._are_numbers = layout.by_position and all(
            _is_number(arrow_type) and layout.kind(name) == "number" for name, arrow_type in types.items()
        )
        self.count: int = self._file.metadata.num_rows

    def blocks(self, block_rows: int) -> Iterator[Any]:
        """Rows, or a float64 array (rows, features) if all columns are numbers and sent by position."""
        with self._named():
            for batch in self._file.iter_batches(batch_size=block_rows, columns=self._names):
                yield self._block(batch.select(self._names))

    def _block(self, batch: RecordBatch) -> Any:
        if self._are_numbers and self._layout.manifest is not None:
            return _matrix(batch, self._layout.manifest.features)
        columns = [_values(batch.column(name), self._layout.kind(name) == "number") for name in self._names]
        return self._layout.rows(self._names, columns, batch.num_rows)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Converts exceptions of pyarrow to a `MalformedError` that names the file."""
        try:
            yield
        except (OSError, ValueError, NotImplementedError, KeyError) as error:
            raise MalformedError(f"{self._where} cannot be read as Parquet: {printable(str(error))[:300]}") from error


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise click.ClickException("Parquet files need pyarrow: pip install 'inferd[files]'") from error
    return parquet


def _check_type(arrow_type: DataType, name: str, where: str) -> None:
    from pyarrow import types

    value_type = arrow_type.value_type if types.is_dictionary(arrow_type) else arrow_type
    text = types.is_string(value_type) or types.is_large_string(value_type) or types.is_string_view(value_type)
    if not (text or _is_number(value_type) or types.is_decimal(value_type) or types.is_null(value_type)):
        raise InvalidValueError(
            f"{where}: column {name!r} holds {value_type}: make it numbers, as the model was trained on, or text, or"
            f" leave it out with --skip-column {name!r}"
        )


def _is_number(arrow_type: DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_boolean(arrow_type))


def _matrix(batch: RecordBatch, features: Sequence[Feature]) -> Any:
    """float64 (rows, features), NaN for missing values."""
    import numpy as np

    matrix = np.full((batch.num_rows, len(features)), np.nan)
    for place, feature in enumerate(features):
        if feature.name in batch.schema.names:
            matrix[:, place] = _floats(batch.column(feature.name))
    return matrix


def _floats(column: Array) -> Any:
    """The values as float64, each rounded to the nearest, as LightGBM converts data frames."""
    return column.cast("float64", safe=False).to_numpy(zero_copy_only=False)


def _values(column: Array, is_number: bool) -> list[Any]:
    from pyarrow import types

    if types.is_floating(column.type) or (is_number and types.is_integer(column.type)):
        values: list[Any] = _floats(column).tolist()
        return values
    return [_plain(value) if isinstance(value, Decimal) else value for value in column.to_pylist()]


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() and -(2**63) <= value < 2**64 else float(value)
