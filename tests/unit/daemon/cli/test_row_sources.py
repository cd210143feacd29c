"""Rows from arguments, files and standard input."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from inferd.daemon.cli.predict.row_sources import open_rows
from inferd.daemon.row_files import source
from inferd.daemon.row_files.layout import Layout
from inferd.daemon.row_files.options import FileOptions, Format
from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    SchemaMismatchError,
    TooLargeError,
)
from inferd.schemas.models.model import Feature, Manifest, Preprocess


def read(
    given: object,
    format_: Format | None = None,
    *,
    features: tuple[Feature, ...] = (),
    stdin: bytes = b"",
    **options: Any,
) -> list[Any]:
    """All rows; errors of the file as a whole are raised."""
    manifest = Manifest("m", 1, "lightgbm", "0" * 64, 1, list(features)) if features else None
    chosen = FileOptions(format_, **options)
    with open_rows(str(given), chosen, Layout("m", manifest), io.BytesIO(stdin)) as source:
        return list(source.rows)


def csv_of(text: str | bytes, **options: Any) -> list[Any]:
    return read("-", "csv", stdin=text.encode() if isinstance(text, str) else text, **options)


def rejection(text: str | bytes, **options: Any) -> str:
    with pytest.raises(InferenceError) as caught:
        csv_of(text, **options)
    return caught.value.message


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
    assert read(argument) == rows


@pytest.mark.parametrize("argument", ["[1, 2", '{"a": 1, "a": 2}', "[NaN]", "{1: 2}", "[" * 50 + "]" * 50])
def test_invalid_json_is_wrong_usage(argument: str) -> None:
    with pytest.raises(click.UsageError, match="not valid JSON"):
        read(argument)


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="neither a file nor a JSON row"):
        read(tmp_path / "missing.csv")
    (tmp_path / "rows.txt").write_text("a\n1\n")
    with pytest.raises(click.UsageError, match="--format csv"):
        read(tmp_path / "rows.txt")
    assert read(tmp_path / "rows.txt", "csv") == [{"a": 1.0}]


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("rows.xlsx", b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "an Excel workbook: save"),
        ("rows.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls): save"),
        ("rows.zip", b"PK\x03\x04" + bytes(26) + b"rows.csv", "a ZIP archive: unpack it first: unzip"),
        ("rows.csv.bz2", b"BZh91AY&SY", "compressed with bzip2: unpack"),
        ("rows.csv.zst", b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack"),
        ("rows.feather", b"ARROW1\0\0", "an Arrow (Feather) file: convert"),
        ("rows", b"PAR1\x15", "a Parquet file: give --format parquet"),
    ],
)
def test_a_file_of_another_format_is_named_with_its_conversion(
    tmp_path: Path, name: str, start: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(start)
    for format_, error in ((None, click.UsageError), ("csv", MalformedError), ("ndjson", MalformedError)):
        with pytest.raises(error) as caught:
            read(path, format_)  # type: ignore[arg-type]
        assert str(caught.value).startswith(f"{path} is {said}")


def test_a_file_without_a_known_suffix_needs_a_format(tmp_path: Path) -> None:
    (tmp_path / "rows.rds").write_bytes(b"RDX3")
    with pytest.raises(click.UsageError, match=r"its suffix names no format; give --format csv.*or convert"):
        read(tmp_path / "rows.rds")


def test_a_skipped_column_has_to_exist(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"a": [1], "id": [2]}), path)
    said = r"has no column 'idd', which --skip-column names; its columns are 'a', 'id'"
    with pytest.raises(SchemaMismatchError, match=said):
        read(path, skip_columns=("idd",))
    with pytest.raises(SchemaMismatchError, match=said):
        csv_of("a,id\n1,2\n", skip_columns=("id", "idd"))
    (tmp_path / "rows.ndjson").write_text('{"a": 1}\n{"a": 1, "id": 2}\n')
    with pytest.raises(SchemaMismatchError, match=said):
        read(tmp_path / "rows.ndjson", skip_columns=("idd",))
    assert read(tmp_path / "rows.ndjson", skip_columns=("id",)) == [{"a": 1}, {"a": 1}], "the feature is optional"


@pytest.mark.parametrize(("rows", "hint"), [('"1",1,2\n"2",3,4\n', True), ("1,2\n1,3,4\n", False), ("1\n2\n", False)])
def test_the_header_of_write_table_is_explained(rows: str, hint: bool) -> None:
    errors = [row.message for row in csv_of(f'"a","b"\n{rows}') if isinstance(row, InferenceError)]
    assert errors
    assert all(("write it with row.names=FALSE" in message) == hint for message in errors)


# ----------------------------------------------------------------------------------------------------------------- CSV

CITY, X, ID = Feature("city", "category", ["Paris", "São Paulo", "7"]), Feature("x"), Feature("id", "category", [1, 2])


def test_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.CSV"
    path.write_text('\ufeffage,plan,ok,note\n41,"pro, yearly",TRUE,\n\n-1.5e3,,false,0042\n', encoding="utf-8")
    features = (Feature("age"), Feature("plan", "category", ["a"]), Feature("note", "category", ["0042"]))
    assert read(path, features=features, skip_columns=("ok",)) == [
        {"age": 41.0, "plan": "pro, yearly", "note": None},
        {"age": -1500.0, "plan": None, "note": "0042"},
    ]


@pytest.mark.parametrize("features", [(ID,), ()])
@pytest.mark.parametrize("number", [2**53 + 1, 9007199254740995, -(2**63), 2**64 - 1, 1234567890123456789])
def test_integers_that_may_be_categories_are_exact(features: tuple[Feature, ...], number: int) -> None:
    (first, second, text) = csv_of(f"id\n{number}\n 5\n{number}\n", features=features)
    assert (first["id"], type(first["id"]), second["id"], text["id"]) == (number, int, 5.0, number)


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_number_is_the_float_nearest_to_it(number: int) -> None:
    (row,) = csv_of(f"x\n{number}\n", features=(X,))
    assert (row["x"], type(row["x"])) == (float(number), float)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_every_number_is_read_as_it_was_written(number: float) -> None:
    assert csv_of(f"a\n{number!r}\n") == [{"a": number}]


@pytest.mark.parametrize("field", ["1_000", "0x10", "1,5", "١", "infinity", "1e", "--1"])
def test_text_that_python_might_take_for_a_number_stays_text(field: str) -> None:
    assert csv_of(f'a\n"{field}"\n') == [{"a": field}]


@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), max_size=6), min_size=2, max_size=2
        ),
        min_size=1,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb18030"]),
    st.booleans(),
)
def test_text_written_by_the_csv_module_is_read_unchanged(
    rows: list[list[str]], delimiter: str, encoding: str, packed: bool
) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([["city", "plan"], *rows])
    data = out.getvalue().encode(encoding)
    features = (CITY, Feature("plan", "category", ["a"]))
    given = {} if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32") else {"encoding": encoding}
    read_rows = csv_of(gzip.compress(data) if packed else data, features=features, na=(), **given)
    assert read_rows == [{"city": city or None, "plan": plan or None} for city, plan in rows]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("city;x\nParis;1,5\n", {"decimal": ","}),
        ("city;x\nParis;1.5\n", {}),
        ("\n \ncity,x\nParis,1.5\n", {}),
        ("sep=;\ncity;x\nParis;1.5\n", {}),
        ("city\tx\rParis\t1.5\r", {}),
        ("city#x\nParis# 1.5 \n", {"delimiter": "#"}),
        ('"city","x"\r\n"Paris","1.5"\r\n', {}),
        ("city,x,x\nParis,1.5,2\n", {"wrong": "more than one column is named 'x'"}),
    ],
)
def test_common_csv_dialects(text: str, options: dict[str, Any]) -> None:
    options = dict(options)
    if wrong := options.pop("wrong", None):
        assert wrong in rejection(text, features=(CITY, X), **options)
    else:
        assert csv_of(text, features=(CITY, X), **options) == [{"city": "Paris", "x": 1.5}]


def test_missing_values_as_r_and_pandas_write_them() -> None:
    text = 'city,x\nParis,NA\nNA,1\n"",NaN\nnull,n/a\n'
    expected = [("Paris", None), (None, 1.0), (None, None), (None, None)]
    assert [tuple(row.values()) for row in csv_of(text, features=(CITY, X))] == expected
    namibia = Feature("city", "category", ["NA", "Paris"])
    assert csv_of("city,x\nNA,NA\n", features=(namibia, X)) == [{"city": "NA", "x": None}]
    assert csv_of("city,x\nNA,-\n", features=(namibia, X), na=("-",)) == [{"city": "NA", "x": None}]
    assert csv_of('city\n""\n') == [{"city": None}]
    filled = Feature("city", "category", ["", "Paris"])
    assert csv_of("city,x\n,\nParis,\n", features=(filled, X)) == [
        {"city": "", "x": None},
        {"city": "Paris", "x": None},
    ]
    assert csv_of("city,x\n,1\n", features=(filled, X), na=("-",)) == [{"city": None, "x": 1.0}]
    mixed = Feature("city", "category", ["", 7])
    assert csv_of("city,x\n,1\n7,1\n", features=(mixed, X)) == [{"city": "", "x": 1.0}, {"city": 7.0, "x": 1.0}]
    assert csv_of("city\nNA\n") == [{"city": "NA"}], "a file with unknown features may be for a model with categories"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("city,x\n" + "Paris,1\n" * 3 + '"Paris,2\n' + "Paris,3\n" * 90, "lines 5 to 95: a quoted value"),
        ("city,x\n" + "Paris,1\n" * 3 + '"Paris,2\n' + "Paris,3\n" * 20_000, "lines 5 to "),
        ('city,x\nParis,1\n"Paris,2\nParis,3\n"Paris",4\n', "lines 3 to 5: a quoted value"),
        ('city,x\n"Par"is,1\n', "lines 2 to 2: a quoted value"),
        (b"city,x\nParis,1\nS\xe3o Paulo,2\n", "line 3: byte 0xe3 is not utf-8; give the encoding"),
        ("city,x\nParis,1\n".encode("utf-16-le"), "line 1: a zero byte; for UTF-16 give --encoding utf-16-le"),
        ("city;x\nParis;1\nParis;0,5\n", "line 3: '0,5' in column 'x' has a comma: give --decimal , if it is"),
        ('city,x\nParis,"0,5"\n', "line 2: '0,5' in column 'x' has a comma"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("city x\nParis 1\n", "unknown 'city x'. The names look separated by ' ': --delimiter ' '"),
        ('"city" "x"\n"Paris" 1\n', "If the values are not separated by ',', say by what: --delimiter ' '"),
        (",city,x\n0,Paris,1\n", "unknown ''. Skip '', which looks like the index"),
        ("Unnamed: 0,city,x\n0,Paris,1\n", "--skip-column 'Unnamed: 0', or write the file without it: index=False"),
        ("city, x\nParis, 1\n", "missing 'x', unknown ' x'. Rename the column ' x' to 'x'"),
        ("Paris,1.5\n", "missing 'city', 'x', unknown 'Paris', '1.5'"),
        ("1.5,2.5\n", "first line must have the column names"),
        ("city\nParis\n", "missing 'x'. Add the missing columns"),
        ("city,x,note\nParis,1,n\n", "unknown 'note'. Skip columns that are not features: --skip-column 'note'"),
        (gzip.compress(b"city,x\nParis,1\n" * 1000, mtime=0)[:-9], "the gzip file is damaged or cut off"),
        (gzip.compress(b"city,x\nParis,1\n", mtime=0)[:-1] + b"x", "the gzip file is damaged or cut off"),
        (b"PK\x03\x04xxxx", "standard input is a ZIP archive"),
        (b"\xff\xfec\x00\x00\xd8", "--encoding"),
    ],
)
def test_an_unreadable_file_names_the_reason_and_the_line(text: str | bytes, said: str) -> None:
    assert said in rejection(text, features=(CITY, X))


def test_spaces_in_names_that_lightgbm_replaces() -> None:
    said = rejection("body mass index\n1\n", features=(Feature("body_mass_index"),))
    assert said.endswith(
        "Rename the column 'body mass index' to 'body_mass_index': LightGBM writes _ for blanks in names"
    )


def test_a_gzip_bomb_is_rejected_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LINE_BYTES_MAX", 100_000)
    assert "line 2: more than 100,000 bytes" in rejection(gzip.compress(b"city,x\n" + b"0" * 50_000_000))
    with pytest.raises(TooLargeError, match="line 1"):
        read("-", stdin=gzip.compress(b"[" * 50_000_000))


def test_invalid_lines_are_errors_among_rows() -> None:
    rows = csv_of('\ncity,x\nParis,1\nParis\n"Pa\nris",2\n\nParis,3,4\nParis,5\n', features=(CITY, X))
    assert [type(row) for row in rows] == [dict, SchemaMismatchError, MalformedError, SchemaMismatchError, dict]
    assert [row.message for row in rows if isinstance(row, InferenceError)] == [
        "line 4: 1 fields, and the header has 2 names",
        "line 5: 'city' has several lines: is a quote missing?",
        "line 8: 3 fields, and the header has 2 names",
    ]


def test_a_skipped_column_may_have_multiline_values() -> None:
    text = 'note,x\n"a\nb",1\n"c",2\n'
    assert csv_of(text, features=(X,), skip_columns=("note",)) == [{"x": 1.0}, {"x": 2.0}]


def test_an_optional_feature_and_one_with_a_default_may_be_missing() -> None:
    manifest = Manifest("m", 1, "lightgbm", "0" * 64, 1, [X, Feature("y", required=False), Feature("z")],
                        preprocess=Preprocess(defaults={"z": 1}))  # fmt: skip
    Layout("m", manifest).check_columns("file", ["x"])
    with pytest.raises(SchemaMismatchError, match="missing 'x'"):
        Layout("m", manifest).check_columns("file", ["y"])


# -------------------------------------------------------------------------------------------------------------- NDJSON


def test_ndjson_rows_and_invalid_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'[1, 2]\n\n{"a": 1, "id": 7}\n{"a": 1, "a": 2}\n3\n[1, 2\n{"a": 2, "id": 8}')
    rows = read(path, skip_columns=("id",))
    assert [row for row in rows if not isinstance(row, InferenceError)] == [[1, 2], {"a": 1}, {"a": 2}]
    assert [row.message.split(":")[0] for row in rows if isinstance(row, InferenceError)] == [
        "line 4",
        "line 5",
        "line 6",
    ]


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none() | st.text(), min_size=1)))
def test_ndjson_round_trip(rows: list[list[Any]]) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    assert read("-", stdin=lines) == rows
    if rows:
        assert read("-", stdin=json.dumps(rows).encode()) == rows


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_ndjson_with_a_byte_order_mark(encoding: str) -> None:
    text = '{"city": "São Paulo", "x": 1}\r\n{"city": "Paris", "x": 9007199254740993}\r\n'
    rows = [{"city": "São Paulo", "x": 1}, {"city": "Paris", "x": 9007199254740993}]
    assert read("-", stdin=text.encode(encoding)) == rows
    assert read("-", stdin=gzip.compress(text.encode(encoding))) == rows


def test_an_array_of_rows_in_a_line_is_flattened() -> None:
    lines = b'[["Paris",1],["Paris",2]]\n[]\n["Paris",3]\n[ {"x":1} ,{"x":2}]\n[[1],2]\n[[1],{"x":3}]\n[[[1]]]\n'
    rows = read("-", stdin=lines)
    assert [row for row in rows if not isinstance(row, InferenceError)] == [
        ["Paris", 1], ["Paris", 2], ["Paris", 3], {"x": 1}, {"x": 2}, [1], {"x": 3}, [[1]],
    ]  # fmt: skip
    assert [row.message for row in rows if isinstance(row, InferenceError)] == [
        "line 2: a row without values",
        "line 5: an array of rows must contain rows only",
    ]


def test_a_json_document_of_several_lines_is_named() -> None:
    with pytest.raises(MalformedError, match="JSON document of several lines"):
        read("-", stdin=b'[\n  {"a": 1}\n]\n')


def test_standard_input_is_read_line_by_line() -> None:
    assert read("-", stdin=b"[1]\n[2]\n") == [[1], [2]]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb", buffering=0) as out:
        out.write(b"a\n1\n")
        with open_rows("-", FileOptions("csv"), Layout("m"), pipe) as opened:
            assert next(opened.rows) == {"a": 1.0}, "before the next line arrives"
            out.write(b"2\n")
            assert (next(opened.rows), opened.waits) == ({"a": 2.0}, True)
    with pytest.raises(click.UsageError, match="name the file"):
        read("-", "parquet")


# ------------------------------------------------------------------------------------------------------------- Parquet


def written(path: Path, columns: dict[str, Any]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def test_a_parquet_file(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.parquet", {"a": [1.5, None], "b": ["x", "y"], "id": [1, 2]})
    rows = read(path, skip_columns=("id",))
    assert [row["b"] for row in rows] == ["x", "y"]
    assert rows[0]["a"] == 1.5
    assert math.isnan(rows[1]["a"])


def test_parquet_values_are_exact(tmp_path: Path) -> None:
    big = 9007199254740995
    columns = {
        "id": pa.array([big, None, 7], "int64"),
        "x": pa.array([big, 2**63 - 1, None], "int64"),
        "money": pa.array([Decimal("0.10"), None, Decimal("12345678901234567.12")], pa.decimal128(30, 2)),
        "key": pa.array([Decimal(big), Decimal(1), None], pa.decimal128(20, 0)),
        "plan": pa.array(["a", None, "b"]).dictionary_encode(),
    }
    features = (ID, X, Feature("money"), Feature("key", "category", [big]), Feature("plan", "category", ["a"]))
    rows = read(written(tmp_path / "rows.parquet", columns), features=features)
    assert [row["id"] for row in rows] == [big, None, 7]
    assert [row["x"] for row in rows[:2]] == [float(big), float(2**63 - 1)]
    assert [row["money"] for row in rows] == [0.1, None, 12345678901234567.12]
    assert [row["key"] for row in rows] == [big, 1, None]
    assert [row["plan"] for row in rows] == ["a", None, "b"]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1], pa.timestamp("ns")), r"column 'x' holds timestamp\[ns\]: make it numbers"),
        (pa.array([1], pa.date32()), r"column 'x' holds date32"),
        (pa.array([[1]]), "column 'x' holds list"),
        (pa.array([b"a"]), "column 'x' holds binary"),
    ],
)
def test_unsupported_types_are_named(tmp_path: Path, column: Any, said: str) -> None:
    path = written(tmp_path / "rows.parquet", {"x": column})
    with pytest.raises(InferenceError, match=said):
        read(path, features=(X,))
    assert read(written(tmp_path / "y.parquet", {"x": [1.5], "y": column}), features=(X,), skip_columns=("y",)) == [
        {"x": 1.5}
    ]


def test_parquet_with_duplicate_columns_dots_and_an_index(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], ["x", "x"])
    parquet.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(MalformedError, match="more than one column is named 'x'"):
        read(tmp_path / "twice.parquet", features=(X,))
    path = written(tmp_path / "dots.parquet", {"x": [1.5], "x.y": ["no"]})
    assert read(path, features=(X,), skip_columns=("x.y",)) == [{"x": 1.5}]
    path = written(tmp_path / "index.parquet", {"x": [1.5], "__index_level_0__": [7]})
    with pytest.raises(SchemaMismatchError, match="looks like the index of a data frame"):
        read(path, features=(X,))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_parquet_file(tmp_path: Path, keep: float) -> None:
    path = written(tmp_path / "rows.parquet", {"x": [float(n) for n in range(10_000)]})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(MalformedError, match="cannot be read as Parquet"):
        read(path)


def test_a_parquet_file_with_damaged_pages(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.parquet", {"x": [float(n) for n in range(10_000)]})
    data = bytearray(path.read_bytes())
    data[20:2_000] = b"\xff" * 1_980
    path.write_bytes(data)
    with pytest.raises(MalformedError, match="cannot be read as Parquet"):
        read(path)
