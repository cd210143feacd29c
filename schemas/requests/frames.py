"""Converts data frames to rows by feature name.

Frames of pandas, polars and pyarrow are recognised by duck typing, so a client does not need any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from inferd.schemas.errors import InvalidValueError

BLOCK_ROWS = 8_192


def is_frame(data: Any) -> bool:
    """Whether `data` is a data frame: of pandas, polars, pyarrow, or any that exports an Arrow stream."""
    return hasattr(data, "columns") and (
        hasattr(data, "iloc") or hasattr(data, "get_columns") or hasattr(data, "__arrow_c_stream__")
    )


def frame_rows(frame: Any) -> list[Any]:
    """All rows; see `frame_blocks`. `InvalidValueError` if there are none."""
    rows = list(frame_items(frame))
    if not rows:
        raise InvalidValueError("the data frame has no rows")
    return rows


def frame_items(frame: Any) -> Iterator[Any]:
    """Each row; see `frame_blocks`."""
    return (row for block in frame_blocks(frame) for row in block)


def frame_blocks(frame: Any) -> Iterator[list[Any]]:
    """The rows in blocks: dicts by column name, or lists if the columns have pandas' default integer labels.

    The index is ignored; missing values of any kind are None. `InvalidValueError` if two columns have the same name.
    """
    table = _table(frame)
    names = _names(table)
    for start in range(0, len(table), BLOCK_ROWS):
        columns = _columns(table, start)
        if names is None:
            yield [list(row) for row in zip(*columns, strict=True)]
        else:
            yield [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def series_values(series: Any) -> Any:
    """A series as a list, or as a dict if it is a pandas Series indexed by names; None for anything else."""
    if hasattr(series, "iloc") and getattr(series, "ndim", 0) == 1:
        values, names = _pandas_values(series), list(series.index)
        return dict(zip(names, values, strict=True)) if all(isinstance(name, str) for name in names) else values
    listed = getattr(series, "to_list", None) or getattr(series, "to_pylist", None)
    return None if listed is None else listed()


def _table(frame: Any) -> Any:
    if hasattr(frame, "iloc") or hasattr(frame, "get_columns") or hasattr(frame, "to_pylist"):
        return frame
    try:
        from pyarrow import table
    except ImportError:
        raise InvalidValueError(f"input_data of {type(frame).__name__}: reading it needs pyarrow") from None
    return table(frame)


def _names(table: Any) -> list[str] | None:
    """Column names as LightGBM reads them from a frame; None for pandas' default integer labels."""
    given: Sequence[Any] = list(table.columns if hasattr(table, "iloc") else _schema_names(table))
    if given == list(range(len(given))):
        return None
    names = [str(name) for name in given]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidValueError(f"the data frame has more than one column named {', '.join(map(repr, repeated[:5]))}")
    return names


def _schema_names(table: Any) -> Sequence[str]:
    names: Sequence[str] = table.columns if hasattr(table, "get_columns") else table.schema.names
    return names


def _columns(table: Any, start: int) -> list[list[Any]]:
    """Values of each column in the rows from `start` on."""
    if hasattr(table, "iloc"):
        block = table.iloc[start : start + BLOCK_ROWS]
        return [_pandas_values(block.iloc[:, index]) for index in range(block.shape[1])]
    block = table.slice(start, BLOCK_ROWS)
    if hasattr(block, "get_columns"):
        return [column.to_list() for column in block.get_columns()]
    return [column.to_pylist() for column in block.columns]


def _pandas_values(series: Any) -> list[Any]:
    values: list[Any] = series.tolist()
    missing = series.isna()
    if not missing.any():
        return values
    return [None if absent else value for value, absent in zip(values, missing.tolist(), strict=True)]
