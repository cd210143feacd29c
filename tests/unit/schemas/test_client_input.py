"""Conversion of Python values to `input_data`: scalars, arrays, series and data frames, without loss."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.jobs.packing import packed_rows
from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.jobs.codec import decode_job_message, encode_rows
from inferd.schemas.jobs.job import JobRows
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import frames
from inferd.schemas.requests.client_input import json_input, wire_input
from inferd.schemas.requests.codec import encode_request

ROW: list[Any] = [np.str_("pro"), np.float64(1.5), np.int64(2**60), np.bool_(True), Decimal("1.25"), pd.NA, pd.NaT]
PLAIN: list[Any] = ["pro", 1.5, 2**60, True, 1.25, None, None]


@pytest.mark.parametrize("first", range(len(ROW)))
def test_any_scalar_may_be_first_in_a_row(first: int) -> None:
    row, plain = ROW[first:] + ROW[:first], PLAIN[first:] + PLAIN[:first]
    assert wire_input(row, MSGPACK) == plain
    assert wire_input([row, row], MSGPACK) == [plain, plain]
    assert [type(value) for value in wire_input(row, MSGPACK)] == [type(value) for value in plain]
    assert encode_request(row, "m") == encode_request(plain, "m")


async def messages(rows: Any, codec: Any = MSGPACK) -> list[bytes]:
    return [packed.data async for packed in packed_rows(rows, codec)]


async def test_rows_of_jobs_take_the_same_scalars() -> None:
    assert await messages([ROW, ROW]) == await messages([PLAIN, PLAIN])
    assert await messages(iter([ROW])) == await messages([PLAIN])


@pytest.mark.parametrize("value", [np.datetime64("2024-01-01", "ns"), np.timedelta64(1, "ns"), date(2024, 1, 1)])
def test_a_timestamp_is_not_a_number(value: Any) -> None:
    """numpy makes integers of nanoseconds without a word."""
    with pytest.raises(InvalidValueError, match="is not a number"):
        wire_input([value], MSGPACK)
    for array in (np.array([value], "M8[ns]"), np.array([[value]], "M8[ns]")) if isinstance(value, date) else ():
        with pytest.raises(InvalidValueError, match="array of times"):
            wire_input(array, MSGPACK)


async def test_masked_values_are_missing() -> None:
    masked = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[False, True], [False, False]])
    assert wire_input(masked, MSGPACK) == [[1.0, None], [3.0, 4.0]]
    assert wire_input(masked[0], MSGPACK) == [1.0, None]
    assert wire_input([1.0, np.ma.masked], MSGPACK) == [1.0, None]
    assert await messages(masked) == await messages([[1.0, None], [3.0, 4.0]])


COLUMNS: dict[str, tuple[list[Any], list[Any]]] = {
    "floats": ([0.5, math.nan, -1e300], [0.5, None, -1e300]),
    "integers": ([2**53 + 1, -(2**62), 3], [2**53 + 1, -(2**62), 3]),
    "booleans": ([True, False, True], [True, False, True]),
    "texts": (["a", None, "é b"], ["a", None, "é b"]),
    "nullable": (pd.array([1, None, 2**53 + 1], dtype="Int64"), [1, None, 2**53 + 1]),
    "nullable_floats": (pd.array([0.5, None, 2.5], dtype="Float64"), [0.5, None, 2.5]),
    "nullable_booleans": (pd.array([True, None, False], dtype="boolean"), [True, None, False]),
    "nullable_texts": (pd.array(["a", None, "b"], dtype="string"), ["a", None, "b"]),
    "arrow": (pd.array([2**53 + 1, None, 1], dtype="int64[pyarrow]"), [2**53 + 1, None, 1]),
    "categories": (pd.Categorical(["x", None, "y"]), ["x", None, "y"]),
    "integer_categories": (pd.Categorical([9007199254740993, None, 7]), [9007199254740993, None, 7]),
    "boolean_categories": (pd.Categorical([True, None, False]), [True, None, False]),
    "objects": (pd.Series([1, "a", pd.NA], dtype=object), [1, "a", None]),
    "decimals": (pd.Series([Decimal("0.1"), None, Decimal(2)], dtype=object), [0.1, None, 2.0]),
    "sparse": (pd.arrays.SparseArray([0.0, 1.5, 0.0]), [0.0, 1.5, 0.0]),
}
FRAME = pd.DataFrame({name: values for name, (values, _) in COLUMNS.items()}).set_index(pd.Index(["r", "s", "t"]))
ROWS = [{name: plain[row] for name, (_, plain) in COLUMNS.items()} for row in range(3)]


class Polars:
    """The part of polars' data frame that the client uses."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def slice(self, start: int, count: int) -> Polars:
        return Polars({name: values[start : start + count] for name, values in self._columns.items()})

    def get_columns(self) -> list[Any]:
        return [pd.Series(values, dtype=object) for values in self._columns.values()]


def without_objects() -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "objects"} for row in ROWS]


class Exported:
    """An object that supports only Arrow's stream interface."""

    columns = ("a",)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return TABLE.__arrow_c_stream__(requested_schema)


TABLE = pa.table({name: plain for name, (_, plain) in COLUMNS.items() if name != "objects"})
FRAMES: dict[str, tuple[Callable[[], Any], list[dict[str, Any]]]] = {
    "pandas": (lambda: FRAME, ROWS),
    "arrow": (lambda: TABLE, without_objects()),
    "batch": (lambda: TABLE.to_batches()[0], without_objects()),
    "stream": (Exported, without_objects()),
    "polars": (
        lambda: Polars({name: plain for name, (_, plain) in COLUMNS.items() if name != "objects"}),
        without_objects(),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_frame_is_its_rows_by_name(name: str) -> None:
    make, rows = FRAMES[name]
    frame = make()
    assert encode_request(frame, "m") == encode_request(rows, "m")
    assert (
        json.loads(json.dumps(json_input(frame), allow_nan=False))
        == json.loads(encode_request(rows, "m", codec=JSON))["input_data"]
    )
    assert await messages(frame) == await messages(rows)
    assert await messages([frame, frame]) == await messages([*rows, *rows]) == await messages(iter([frame, frame]))
    assert await messages(frame, JSON) == await messages(rows, JSON)
    assert encode_rows(0, frame) == encode_rows(0, rows)


def test_a_series_is_a_row() -> None:
    row = FRAME[["integers", "texts", "nullable"]].iloc[0]
    assert wire_input(row, MSGPACK) == {"integers": 2**53 + 1, "texts": "a", "nullable": 1}
    assert wire_input([row, row], MSGPACK) == [wire_input(row, MSGPACK)] * 2
    assert wire_input(pd.Series([1.5, 2.5]), MSGPACK) == [1.5, 2.5]
    assert wire_input(pa.array([1.5, None]), MSGPACK) == [1.5, None]


async def test_series_among_the_rows_of_a_job_keep_their_names() -> None:
    row = FRAME[["integers", "texts"]].iloc[0]
    assert await messages([row, row]) == await messages([{"integers": 2**53 + 1, "texts": "a"}] * 2)
    assert await messages(iter([row])) == await messages([{"integers": 2**53 + 1, "texts": "a"}])


def test_columns_without_names_are_sent_by_position() -> None:
    frame = pd.DataFrame([[1.5, 2.0], [3.5, 4.0]])
    assert wire_input(frame, MSGPACK) == [[1.5, 2.0], [3.5, 4.0]]
    assert wire_input(frame[[1, 0]], MSGPACK) == [{"1": 2.0, "0": 1.5}, {"1": 4.0, "0": 3.5}]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column named 'a'"),
        (pd.DataFrame([[1, 2]], columns=["1", 1]), "more than one column named '1'"),
        (pd.DataFrame({"a": []}), "has no rows"),
        (pd.DataFrame({"a": [datetime(2024, 1, 1, tzinfo=UTC)]}), "feature 'a': Timestamp is not a number"),
        (pa.table({"a": [[1]]}), "feature 'a': list is not a number"),
        (pa.table({"a": [date(2024, 1, 1)]}), "feature 'a': date is not a number"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), "more than one column named 'x'"),
    ],
)
def test_unsupported_columns_of_a_frame_are_named(frame: Any, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        wire_input(frame, MSGPACK)
    assert message in caught.value.message


@given(st.integers(0, 40), st.integers(1, 9))
def test_blocks_are_all_rows_once_and_in_order(rows: int, block: int) -> None:
    before, frames.BLOCK_ROWS = frames.BLOCK_ROWS, block
    try:
        for frame in (pd.DataFrame({"a": range(rows)}), pa.table({"a": pa.array(range(rows), "int64")})):
            blocks = list(frames.frame_blocks(frame))
            assert [row["a"] for each in blocks for row in each] == list(range(rows))
            assert all(len(each) <= block for each in blocks)
    finally:
        frames.BLOCK_ROWS = before


async def test_a_frame_without_rows_is_a_job_without_rows() -> None:
    assert await messages(pd.DataFrame({"a": []})) == []


def test_the_client_imports_neither_pandas_nor_pyarrow() -> None:
    code = "import sys, inferd; inferd.Client, inferd.json_input([1]); print({'pandas', 'pyarrow'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_sent_input_is_decoded_as_rows() -> None:
    message = decode_job_message(encode_rows(0, FRAME), MSGPACK, DEFAULT_LIMITS)
    assert isinstance(message, JobRows)
    assert message.batch.count == 3
