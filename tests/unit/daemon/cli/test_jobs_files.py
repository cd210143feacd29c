"""Packing files into job messages: complete, in the layout of the model, and deterministic."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.cli.jobs.files import JobRows, json_messages, open_job_rows
from inferd.daemon.cli.jobs.submit import layout_for, parse_label
from inferd.daemon.cli.times import parse_later
from inferd.daemon.row_files.layout import Layout
from inferd.daemon.row_files.ndjson_rows import ndjson_blocks
from inferd.daemon.row_files.options import FileOptions
from inferd.jobs.packing import PackedRows
from inferd.models.model_list import ModelList
from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    SchemaMismatchError,
    TooLargeError,
)
from inferd.schemas.jobs.job import JobStatus
from inferd.schemas.models.model import (
    Alias,
    AliasKey,
    Feature,
    Manifest,
    SplitShare,
    VersionKey,
)
from inferd.schemas.requests.request import ModelReference


def manifest(*features: Feature, version: int = 1) -> Manifest:
    return Manifest("m", version, "lightgbm", "0" * 64, 1, list(features))


NUMBERS = manifest(Feature("a"), Feature("b"), Feature("c", required=False))
MIXED = manifest(Feature("a"), Feature("plan", "category", ["7", "pro"]))


def rows_of(path: Path | str, model: Manifest | None, stdin: bytes = b"", **options: Any) -> tuple[list[Any], JobRows]:
    layout = Layout("m:1", model, by_position=model is not None)
    chosen = FileOptions(options.get("format"), options.get("skip", ()))
    with open_job_rows(str(path), chosen, layout, io.BytesIO(stdin)) as opened:
        return [row for message in opened.messages for row in decoded(message)], opened


def decoded(message: PackedRows) -> list[Any]:
    value: Any = message.codec.decoder(Any)(message.data)
    if isinstance(value, dict):
        value = np.frombuffer(value["data"], value["dtype"]).reshape(value["shape"]).tolist()
    assert len(value) == message.count
    return list(value)


@pytest.mark.parametrize("model", [NUMBERS, None])
def test_csv_by_position_and_by_name(tmp_path: Path, model: Manifest | None) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\ufeffb,id,a\n1,x,2.5\n,y,-3e2\ntrue,z,one\n\n4,5\n6,w,nan\n")
    rows, opened = rows_of(path, model, skip=("id",))
    read = [{"b": 1.0, "a": 2.5}, {"b": None, "a": -300.0}, {"b": True, "a": "one"}, [], {"b": 6.0}]
    expected = [[row.get("a"), row.get("b"), None] if isinstance(row, dict) else row for row in read]
    if model is None:
        expected = read
    assert rows[:4] == expected[:4]
    last = rows[4] if model is not None else [rows[4]["a"], rows[4]["b"]]
    assert last[0] is None or last[0] != last[0]
    assert last[1] == 6.0
    assert (opened.invalid_count, opened.first_problems) == (1, ["line 6: 2 fields, and the header has 3 names"])


def test_text_that_looks_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("plan,a\n7,7\npro,1_0\n")
    assert rows_of(path, MIXED)[0] == [[7.0, "7"], ["1_0", "pro"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\n1\n", "missing 'b'"), ("a,b,d\n1,2,3\n", "unknown 'd'. Skip columns .* --skip-column 'd'")],
)
def test_columns_that_are_not_features(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(SchemaMismatchError, match=said):
        rows_of(path, NUMBERS)


def test_a_header_with_a_duplicate_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(MalformedError, match="more than one column is named 'a'"):
        rows_of(path, None)


def test_ndjson_rows_keep_their_bytes_and_numbers() -> None:
    text = b'[1, 2, 3]\n\n  {"a": 1.50, "b": null}\r\nno json\n5\n{"a": 1, "a": 2}\n'
    rows, opened = rows_of("-", NUMBERS, text)
    assert rows[:4] == [[1, 2, 3], {"a": 1.5, "b": None}, [], []]
    assert opened.invalid_count == 2
    assert opened.first_problems[0].startswith("line 4: ")
    skipped, _ = rows_of("-", NUMBERS, b'{"a": 1, "id": 7}\nno json\n', skip=("id",))
    assert skipped == [{"a": 1}, []]


ROW_LINES = (b"[1, 2]", b'{"a": 1}', b" [1]\r", b"[[1], [2]]", b'[{"a": 1}]')
OTHER_LINES = (b"", b"[]", b"{}", b"[1", b"2]", b"[1],[2]", b"3", b"[[]")


@given(st.lists(st.sampled_from(ROW_LINES + OTHER_LINES), max_size=12))
def test_ndjson_rows_are_the_same_in_blocks_and_alone(lines: list[bytes]) -> None:
    together = next(ndjson_blocks(iter(lines), "file", (), 100, raw=True), [])
    alone = [row for line in lines for row in next(ndjson_blocks(iter([b"", line]), "file", (), 2, raw=False), [])]
    assert [None if isinstance(row, InferenceError) else json.loads(row) for row in together] == [
        None if isinstance(row, InferenceError) else row for row in alone
    ]


def test_messages_consist_of_whole_blocks() -> None:
    lines = [b"[%d]" % number for number in range(3_000)]
    messages = list(json_messages(lines, 8_000))
    assert [message.count for message in messages] == [1_024, 1_024, 952]
    assert [row for message in messages for row in decoded(message)] == [[number] for number in range(3_000)]
    with pytest.raises(TooLargeError, match="row 1"):
        list(json_messages([b"[1]", b"[" + b"1" * 8_000 + b"]"], 8_000))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "ndjson"])
def test_the_same_file_makes_the_same_messages(tmp_path: Path, suffix: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    values = np.random.default_rng(1).normal(size=(40_000, 3)).round(6)
    table = pandas.DataFrame(values, columns=["b", "a", "c"])
    path = tmp_path / f"rows.{suffix}"
    write = {"csv": table.to_csv, "parquet": table.to_parquet}.get(suffix)
    if write is None:
        path.write_text("".join(json.dumps(dict(row)) + "\n" for _, row in table.iterrows()))
    else:
        write(path, index=False)
    layout = Layout("m:1", NUMBERS, by_position=True)

    def messages() -> list[PackedRows]:
        with open_job_rows(str(path), FileOptions(), layout, sys.stdin.buffer) as opened:
            return list(opened.messages)

    first = messages()
    assert first == messages()
    assert len(first) > 1
    rows = [row for message in first for row in decoded(message)]
    if suffix == "ndjson":
        rows = [[row["a"], row["b"], row["c"]] for row in rows]
    assert rows == table[["a", "b", "c"]].to_numpy().tolist()


def test_numeric_parquet_becomes_an_array_and_categories_lists(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "rows.parquet"
    table = pandas.DataFrame({"b": [True, None], "a": pandas.array([3, None], dtype="Int32")})
    table.to_parquet(path)
    rows, opened = rows_of(path, NUMBERS)
    assert (rows[0][:2], opened.count) == ([3.0, 1.0], 2)
    assert np.isnan([*rows[1], rows[0][2]]).all()
    pandas.DataFrame({"plan": pandas.Categorical(["pro", None]), "a": [1.5, 2.5]}).to_parquet(path)
    assert rows_of(path, MIXED)[0] == [[1.5, "pro"], [2.5, None]]
    path.write_text("no parquet")
    with pytest.raises(MalformedError, match="Parquet"):
        rows_of(path, NUMBERS)


@pytest.mark.parametrize(("given", "format_"), [("missing.csv", None), (__file__, None), ("-", "parquet")])
def test_files_that_are_not_row_files(given: str, format_: Any) -> None:
    with pytest.raises(click.UsageError):
        rows_of(given, None, format=format_)


def status(version: int | None) -> JobStatus:
    return JobStatus("j", "running", "m", version, "d", 0, 0, 0, 0, 0, 0, 1, None, 1, None)


def test_rows_are_sent_by_position_if_the_version_is_known() -> None:
    models = ModelList()
    for version in (1, 2):
        models.versions[VersionKey("m", version)] = manifest(Feature("a"), version=version)
        models.highest["m"] = version
    name = ModelReference.parse("m")
    assert layout_for(models, name, None).model == "m:2"
    assert layout_for(models, name, status(1)).model == "m:1", "a continued job keeps its version"
    models.aliases[AliasKey("m", "champion")] = Alias(split=[SplitShare(1, 50), SplitShare(2, 50)])
    split = layout_for(models, name, None)
    assert (split.model, split.by_position) == ("m", False)
    assert layout_for(models, ModelReference.parse("m:1"), None).by_position


@pytest.mark.parametrize("text", ["90s", "30m", "2h", "1.5d", "2026-12-24T18:00Z"])
def test_deadlines(text: str) -> None:
    context, option = click.Context(click.Command("x")), click.Option(["--deadline"])
    assert parse_later(context, option, text) is not None
    assert parse_later(context, option, None) is None
    with pytest.raises(click.BadParameter):
        parse_later(context, option, f"{text}!")


def test_labels() -> None:
    context, option = click.Context(click.Command("x")), click.Option(["--label"])
    assert parse_label(context, option, ("a=1", "b=x=y")) == {"a": "1", "b": "x=y"}
    assert parse_label(context, option, ()) is None
    for wrong in ("a", "=1"):
        with pytest.raises(click.BadParameter):
            parse_label(context, option, (wrong,))
