"""Output of `inferd jobs`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import click
import pytest

from inferd.daemon.cli.jobs.output import list_row, open_writer, write_status
from inferd.daemon.cli.jobs.progress import Rate, describe
from inferd.daemon.row_files.options import Format
from inferd.schemas.jobs.job import (
    ChunkResult,
    JobError,
    JobStatus,
    Missing,
)
from inferd.schemas.requests import RowError

BAD = RowError(2, "invalid_value", "row 2, feature 'a' is text")
CHUNKS = [
    ChunkResult("j", 0, 0, 0, 1, "d", {"prediction": [0.5, 0.1], "probabilities": [[0.5, 0.5], [0.9, 0.1]]}, []),
    ChunkResult("j", 1, 2, 0, 1, "d", {"prediction": [None, 0.25], "probabilities": [None, [0.75, 0.25]]}, [BAD]),
]


def written(path: Path, format_: Format, from_row: int = 0, chunks: list[ChunkResult] = CHUNKS) -> Path:
    writer, file = open_writer(path, format_, append=from_row > 0)
    for chunk in chunks:
        writer.write(chunk, from_row)
    writer.close()
    if file is not None:
        file.close()
    return path


def test_ndjson_is_the_same_as_over_http(tmp_path: Path) -> None:
    path = written(tmp_path / "out.ndjson", "ndjson")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1] == {"row": 1, "prediction": 0.1, "probabilities": [0.9, 0.1]}
    assert lines[2] == {"row": 2, "error": {"code": BAD.code, "message": BAD.message}}
    assert [line["row"] for line in lines] == [0, 1, 2, 3]


def test_csv_and_appending_to_it(tmp_path: Path) -> None:
    path = written(tmp_path / "out.csv", "csv", chunks=CHUNKS[:1])
    written(path, "csv", 2, CHUNKS[1:])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["row"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["prediction"] for row in rows] == ["0.5", "0.1", "", "0.25"]
    assert rows[1]["probabilities"] == "[0.9,0.1]"
    assert [row["error_code"] for row in rows] == ["", "", "invalid_value", ""]


def test_parquet_has_typed_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(written(tmp_path / "out.parquet", "parquet", 1))
    assert table.schema.names == ["row", "prediction", "probabilities", "error_code", "error_message"]
    assert table.to_pylist()[1] == {
        "row": 2, "prediction": None, "probabilities": None, "error_code": BAD.code, "error_message": BAD.message,
    }  # fmt: skip
    assert table["row"].to_pylist() == [1, 2, 3]
    assert str(table.schema.field("prediction").type) == "double"
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    with pytest.raises(click.UsageError, match="cannot append"):
        open_writer(tmp_path / "out.parquet", "parquet", append=True)


def test_parquet_of_rows_that_all_failed(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    failed = ChunkResult("j", 0, 2, 0, 1, "d", {"prediction": [None]}, [BAD])
    table = parquet.read_table(written(tmp_path / "out.parquet", "parquet", chunks=[failed]))
    assert (table["prediction"].to_pylist(), str(table.schema.field("prediction").type)) == ([None], "double")


def status(phase: str = "running", **changes: object) -> JobStatus:
    fields = {
        "job_id": "j", "status": phase, "model_id": "m", "version": 2, "digest": "d", "input_count": 2_000,
        "processed": 500, "succeeded": 499, "failed": 1, "chunks_total": 4, "chunks_done": 1, "submitted_at": 1_000,
        "started_at": 2_000, "updated_at": 3_000, "finished_at": None, **changes,
    }  # fmt: skip
    return JobStatus(**fields)  # type: ignore[arg-type]


def test_a_status_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    failed = status(
        "incomplete", finished_at=4_500, error=JobError("x", "why"), missing=Missing(close=True), labels={"a": "b"}
    )
    write_status("table", failed)
    shown = capsys.readouterr().out
    for text in ("m:2", "2.5 s", "x: why", '{"close":true}', '{"a":"b"}', "500: 499 succeeded, 1 failed"):
        assert text in shown
    write_status("json", status())
    assert json.loads(capsys.readouterr().out)["processed"] == 500
    assert list_row(status())[:4] == ("j", "running", "m:2", "2,000")


def test_rates_and_the_time_left() -> None:
    rate = Rate(over_s=10)
    assert describe(status(), rate) == "running: 500 of 2,000 rows, 1 failed"
    for second in range(20):
        rate.add(float(second), 50 * second)
    assert rate.per_s == 50
    assert describe(status(), rate).endswith("50 rows/s, 30 s left")
    assert "left" not in describe(status("completed"), rate)
    rate.add(20.0, 0)
    assert rate.per_s == 0, "after a retry the count is lower"
