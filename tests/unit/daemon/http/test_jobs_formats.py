"""Results of jobs in the format that the caller accepts."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from pyarrow import parquet

from inferd.daemon.http.core.errors import NotAcceptableError
from inferd.daemon.http.routes import jobs_formats
from inferd.daemon.http.routes.jobs_formats import accepted_format, csv_pieces, parquet_pieces

FAILED = {"error": {"code": "invalid_value", "message": 'no, "number"'}}


async def lines_of(*pieces: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    row = 0
    for piece in pieces:
        numbered = [{"row": row + place, **line} for place, line in enumerate(piece)]
        row += len(piece)
        yield b"".join(msgspec.json.encode(line) + b"\n" for line in numbered)


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "ndjson"),
        ("*/*", "ndjson"),
        ("application/*", "ndjson"),
        ("text/*", "csv"),
        ("Text/CSV", "csv"),
        ("text/html, text/csv;q=0.3, application/vnd.apache.parquet;q=0.9", "parquet"),
        ("*/*;q=0.1, text/csv", "csv"),
        ("application/x-ndjson;q=0, */*", "csv"),
        ("text/csv;q=0.5;header=present", "csv"),
    ],
)
def test_the_format_with_the_highest_quality_is_chosen(accept: str | None, expected: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    assert accepted_format(make_mocked_request("GET", "/", headers=headers)) == expected


@pytest.mark.parametrize("accept", ["image/png", "", "*/*;q=0", "text/csv;q=much", "application/json"])
def test_unsupported_formats_are_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="text/csv"):
        accepted_format(make_mocked_request("GET", "/", headers={"Accept": accept}))


async def test_csv_has_a_column_per_output_and_two_for_the_error() -> None:
    lines = lines_of([FAILED], [{"prediction": 0.1, "probabilities": [0.5, 0.25]}, {"prediction": "a,b\nc"}])
    text = (await joined(csv_pieces(lines, ["prediction", "probabilities"]))).decode()
    assert list(csv.reader(io.StringIO(text))) == [
        ["row", "prediction", "probabilities", "error_code", "error_message"],
        ["0", "", "", "invalid_value", 'no, "number"'],
        ["1", "0.1", "[0.5,0.25]", "", ""],
        ["2", "a,b\nc", "", "", ""],
    ]


async def test_csv_of_no_rows_has_its_header() -> None:
    assert await joined(csv_pieces(lines_of(), ["prediction"])) == b"row,prediction,error_code,error_message\n"


async def test_parquet_defers_until_column_types_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_formats, "GROUP_ROWS", 3)
    lines = lines_of([FAILED], [FAILED], [{"prediction": [0.1, 2.5]}], *[[{"prediction": [1.0, 2.0]}]] * 5)
    table = parquet.ParquetFile(io.BytesIO(await joined(parquet_pieces(lines, ["prediction"]))))
    assert table.metadata.num_row_groups > 1
    columns = table.read().to_pydict()
    assert columns["row"] == list(range(8))
    assert columns["prediction"] == [None, None, [0.1, 2.5], *[[1.0, 2.0]] * 5]
    assert columns["error_code"] == ["invalid_value"] * 2 + [None] * 6


@pytest.mark.parametrize("pieces", [[], [[FAILED] * 3]])
async def test_parquet_without_a_single_prediction(pieces: list[Any]) -> None:
    table = parquet.read_table(io.BytesIO(await joined(parquet_pieces(lines_of(*pieces), ["prediction"]))))
    assert table.column_names == ["row", "prediction", "error_code", "error_message"]
    assert table["prediction"].null_count == len(table) == 3 * len(pieces)


async def test_values_of_mixed_types_are_not_acceptable() -> None:
    lines = lines_of([{"prediction": 0.5}], [{"prediction": "no number"}])
    with pytest.raises(NotAcceptableError, match="x-ndjson"):
        await joined(parquet_pieces(lines, ["prediction"]))


async def test_without_pyarrow_parquet_is_not_acceptable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NotAcceptableError, match=r"inferd\[files\]"):
        await joined(parquet_pieces(lines_of([{"prediction": 0.5}]), ["prediction"]))
