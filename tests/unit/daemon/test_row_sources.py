"""Rows from arguments, files and standard input."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli.row_sources import Format, RowSource, csv_rows, ndjson_rows, open_rows
from schemas.errors import InferenceError, MalformedError, SchemaMismatchError

NOTHING = io.BytesIO()


def opened(
    given: object,
    format_: Format | None = None,
    *,
    text: frozenset[str] = frozenset(),
    skip: tuple[str, ...] = (),
    stdin: bytes = b"",
) -> RowSource:
    return open_rows(str(given), format_, text, skip, io.BytesIO(stdin))


@pytest.mark.parametrize(
    ("argument", "rows"),
    [
        ("[1, 2.5, null]", [[1, 2.5, None]]),
        (' {"a": 1, "b": "x"}', [{"a": 1, "b": "x"}]),
        ("[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("[]", [[]]),
    ],
)
def test_an_argument_is_a_row_or_rows(argument: str, rows: list[Any]) -> None:
    source = opened(argument)
    assert (list(source.rows), source.count) == (rows, len(rows))


@pytest.mark.parametrize("argument", ["[1, 2", '{"a": 1, "a": 2}', "[NaN]", "{1: 2}", "[" * 50 + "]" * 50])
def test_an_argument_that_is_no_json_is_wrong_usage(argument: str) -> None:
    with pytest.raises(click.UsageError, match="no JSON"):
        opened(argument)


def test_what_is_no_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="no file, and no JSON row"):
        opened(tmp_path / "missing.csv")
    (tmp_path / "rows.txt").write_text("a\n1\n")
    with pytest.raises(click.UsageError, match="--format csv"):
        opened(tmp_path / "rows.txt")
    assert list(opened(tmp_path / "rows.txt", "csv").rows) == [{"a": 1.0}]


def test_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.CSV"
    path.write_text('\ufeffage,plan,ok,note\n41,"pro, yearly",TRUE,\n\n-1.5e3,,false,0042\n', encoding="utf-8")
    source = opened(path, text=frozenset({"note"}), skip=("ok",))
    assert list(source.rows) == [
        {"age": 41.0, "plan": "pro, yearly", "note": None},
        {"age": -1500.0, "plan": None, "note": "0042"},
    ]


def test_a_csv_row_of_another_width_is_an_error_among_rows() -> None:
    rows = list(csv_rows(["a,b\n", "1,2\n", "1\n", "3,4\n"]))
    assert [type(row) for row in rows] == [dict, SchemaMismatchError, dict]
    assert isinstance(rows[1], InferenceError)
    assert rows[1].message == "line 3: 1 fields, and the header has 2 names"


def test_a_csv_header_that_repeats_a_name_is_refused() -> None:
    with pytest.raises(MalformedError, match="header names a more than once"):
        list(csv_rows(["a,b,a\n", "1,2,3\n"]))


@pytest.mark.parametrize("field", ["1_000", "0x10", "1,5", "١", "infinity", "1e", "--1"])
def test_text_that_python_might_take_for_a_number_stays_text(field: str) -> None:
    (row,) = csv_rows(["a\n", f'"{field}"\n'])
    assert row == {"a": field}


def test_nan_is_a_number_that_is_none() -> None:
    (row,) = csv_rows(["a\n", "NaN\n"])
    assert isinstance(row, dict)
    assert math.isnan(row["a"])


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_every_number_is_read_as_it_was_written(number: float) -> None:
    (row,) = csv_rows(["a\n", f"{number!r}\n"])
    assert row == {"a": number}


def test_ndjson_rows_and_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'[1, 2]\n\n{"a": 1, "id": 7}\n{"a": 1, "a": 2}\n3\n[1, 2\n{"a": 2, "id": 8}')
    source = opened(path, skip=("id",))
    rows = list(source.rows)
    assert [row for row in rows if not isinstance(row, InferenceError)] == [[1, 2], {"a": 1}, {"a": 2}]
    assert [row.message.split(":")[0] for row in rows if isinstance(row, InferenceError)] == [
        "line 4",
        "line 5",
        "line 6",
    ]
    assert source.count == 7


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none() | st.text(), min_size=1)))
def test_ndjson_gives_back_what_json_wrote(rows: list[list[Any]]) -> None:
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    assert list(ndjson_rows(lines)) == rows


def test_standard_input() -> None:
    assert list(opened("-", stdin=b"[1]\n[2]\n").rows) == [[1], [2]]
    assert list(opened("-", "csv", stdin=b"\xef\xbb\xbfa\n1\n").rows) == [{"a": 1.0}]
    assert opened("-").waits
    with pytest.raises(click.UsageError, match="name the file"):
        opened("-", "parquet")


def test_a_parquet_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"a": [1.5, None], "b": ["x", "y"], "id": [1, 2]}), path)
    source = opened(path, skip=("id",))
    assert (list(source.rows), source.count) == ([{"a": 1.5, "b": "x"}, {"a": None, "b": "y"}], 2)


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(MalformedError, match="cannot be read as Parquet"):
        opened(tmp_path / "rows.parquet")
