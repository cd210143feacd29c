"""Output of `inferd predict`."""

from __future__ import annotations

import json

import pytest

from inferd.daemon.cli.predict.output import TABLE_ROWS_BUFFERED, row_writer
from inferd.daemon.cli.predict.row_batches import Outcome
from inferd.schemas.errors import InvalidValueError


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    writer = row_writer("json", ("prediction", "raw"))
    writer.write(Outcome(0, {"prediction": 0.25, "raw": -1.5}, 3))
    writer.write(Outcome(1, {}, error=InvalidValueError("row 0: no")))
    writer.close()
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"row": 0, "prediction": 0.25, "raw": -1.5, "version": 3},
        {"row": 1, "error": {"code": "invalid_value", "message": "row 0: no"}},
    ]


def test_a_small_table(capsys: pytest.CaptureFixture[str]) -> None:
    writer = row_writer("table", ("prediction",))
    writer.write(Outcome(0, {"prediction": [0.5, 0.5]}, 3))
    assert capsys.readouterr().out == ""
    writer.close()
    assert capsys.readouterr().out == "row  prediction\n0    [0.5,0.5]\n"


def test_a_table_with_an_error_has_a_column_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    writer = row_writer("table", ("prediction",))
    writer.write(Outcome(0, {"prediction": "late"}, 3))
    writer.write(Outcome(1, {}, error=InvalidValueError("a \x1b[31mred\nvalue")))
    writer.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["row", "prediction", "error"]
    assert lines[2].split(None, 2)[:2] == ["1", "-"]
    assert lines[2].split(None, 2)[2].startswith("invalid_value: a ")
    assert "\x1b" not in "".join(lines)
    assert len(lines) == 3


def test_a_long_table_is_streamed(capsys: pytest.CaptureFixture[str]) -> None:
    writer = row_writer("table", ("prediction",))
    for row in range(TABLE_ROWS_BUFFERED + 5):
        writer.write(Outcome(row, {"prediction": row / 4}, 3))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == TABLE_ROWS_BUFFERED + 5 + 1
    assert lines[-1].split() == [str(TABLE_ROWS_BUFFERED + 4), str((TABLE_ROWS_BUFFERED + 4) / 4)]
    writer.close()
    assert capsys.readouterr().out == ""


def test_no_rows_print_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    row_writer("table", ("prediction",)).close()
    assert capsys.readouterr().out == ""
