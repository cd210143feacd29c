"""Any kind of feature, in any codec, by any way to send rows: the model gets the same values, bit for bit."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from inferd.daemon.row_files import FileOptions, Layout, open_row_file
from inferd.jobs.packing import Packer
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import decode_request, encode_request, request_of_body
from inferd.streams.inference import (
    FileFeature,
    Inputs,
    PinnedModelId,
    ServedModel,
    load_model,
    manifest_of,
    register,
    rows_as_bytes,
    unregister,
)
from inferd.streams.inference.features import scorable_rows
from inferd.streams.serving import BatchPredictor, ModelManager, RealtimePredictor
from tests.fixtures.toy_format import TOY, ToyRuntime, toy_file

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FILLED = TEXT.filter(bool)
PLANS, SIZES, GRADES, NIGHTS = ("NA", "b ä"), ("S", "M"), (1, 2, 2**60 + 1), (True, False)
FEATURES = (
    FileFeature(name="number"),
    FileFeature(name="narrow", dtype="float32"),
    FileFeature(name="integer", dtype="int64"),
    FileFeature(name="boolean", dtype="bool", missing=False),
    FileFeature(name="text", dtype="text", missing=False),
    FileFeature(name="remark", dtype="text"),
    FileFeature(name="city", dtype="category"),
    FileFeature(name="plan", dtype="category", categories=PLANS),
    FileFeature(name="size", dtype="category", categories=SIZES, coded=True),
    FileFeature(name="grade", dtype="category", categories=GRADES, unknown=True),
    FileFeature(name="night", dtype="category", categories=NIGHTS),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "narrow": st.none() | st.floats(-3e38, 3e38),
    "integer": st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
    "boolean": st.booleans(),
    "text": TEXT,
    "remark": st.none() | FILLED,
    "city": st.none() | FILLED,
    "plan": st.sampled_from([None, *PLANS]),
    "size": st.sampled_from([None, *SIZES]),
    "grade": st.sampled_from([None, *GRADES, 9]),
    "night": st.sampled_from([None, *NIGHTS]),
}
ARROW = {"text": pyarrow.string(), "float64": pyarrow.float64(), "float32": pyarrow.float64(), "int64": pyarrow.int64(),
         "bool": pyarrow.bool_()}  # fmt: skip
Rows = list[list[Any]]


@pytest.fixture(autouse=True, scope="module")
def _toy() -> Iterator[None]:
    register(TOY)
    yield
    unregister("toy")


@st.composite
def models_and_rows(draw: st.DrawFn, among: Sequence[str] = tuple(VALUES)) -> tuple[ServedModel, Rows]:
    names = draw(st.lists(st.sampled_from(among), min_size=1, max_size=5, unique=True))
    by_name = {feature.name: feature for feature in FEATURES}
    content = toy_file([by_name[name] for name in names], ("bug", "question"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(content)
        model = load_model(path, manifest_of(content, "m", 1))
    rows = draw(st.lists(st.tuples(*[VALUES[name] for name in names]).map(list), min_size=1, max_size=4))
    return model, rows


def named(model: ServedModel, rows: Rows) -> list[dict[str, Any]]:
    return [dict(zip(model.features.feature_names, row, strict=True)) for row in rows]


def by_request(model: ServedModel, data: Any, codec: Codec) -> Inputs:
    request = decode_request(encode_request(data, "m", codec=codec), codec, DEFAULT_LIMITS)
    return model.features.inputs(request.input_data)


def by_http(model: ServedModel, data: Any) -> Inputs:
    body = msgspec.json.encode({"input_data": data})
    request = decode_request(request_of_body(body, JSON, "m", "1"), JSON, DEFAULT_LIMITS)
    return model.features.inputs(request.input_data)


def by_job(model: ServedModel, data: Any, codec: Codec) -> Inputs:
    packer = Packer(codec)
    (packed,) = [*packer.add(data), *packer.finish()]
    rows = scorable_rows(packed.data, packed.codec, model.features, DEFAULT_LIMITS, range(packed.count))
    assert not rows.errors
    return rows.inputs


def by_file(model: ServedModel, path: Path, *, by_position: bool) -> Inputs:
    layout = Layout("m", model.manifest, by_position)
    with open_row_file(str(path), FileOptions(), layout, io.BytesIO()) as file:
        rows = [row for block in file.blocks for row in block]
    return by_request(model, rows, MSGPACK)


def write_csv(model: ServedModel, rows: Rows, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(model.features.feature_names)
        writer.writerows(rows)


def write_ndjson(model: ServedModel, rows: Rows, path: Path) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in named(model, rows)))


def write_parquet(model: ServedModel, rows: Rows, path: Path) -> None:
    columns = zip(model.manifest.features, zip(*rows, strict=True), strict=True)
    arrays = {feature.name: pyarrow.array(values, ARROW.get(feature.dtype)) for feature, values in columns}
    parquet.write_table(pyarrow.table(arrays), path)


def in_a_script(model: ServedModel, data: Any) -> tuple[Inputs, Inputs]:
    """The values that a predictor and a batch job pass to the model."""
    runtime = cast(ToyRuntime, model.runtime)
    manager = ModelManager("unused")
    reference = PinnedModelId.of("m", model)
    labels = RealtimePredictor(model_manager=manager).predict(model_id=reference, input_data=data)
    first = runtime.seen[-1]
    with BatchPredictor(model_manager=manager) as jobs:
        assert jobs.process_batch(reference, data) == labels
    assert set(labels) <= {"bug", "question"}
    return first, runtime.seen[-1]


@settings(max_examples=40, deadline=None)
@given(models_and_rows())
def test_rows_are_the_same_however_they_are_sent(given_: tuple[ServedModel, Rows]) -> None:
    model, rows = given_
    by_name = named(model, rows)
    expected = rows_as_bytes(by_request(model, rows, MSGPACK))
    received: dict[str, Inputs] = {
        "msgpack by name": by_request(model, by_name, MSGPACK),
        "json by position": by_request(model, rows, JSON),
        "json by name": by_request(model, by_name, JSON),
        "http by position": by_http(model, rows),
        "http by name": by_http(model, by_name),
        "job by position": by_job(model, rows, MSGPACK),
        "job by name": by_job(model, by_name, MSGPACK),
        "json job by position": by_job(model, rows, JSON),
        "json job by name": by_job(model, by_name, JSON),
        "data frame": by_request(model, pd.DataFrame(by_name, dtype=object), MSGPACK),
    }
    received["script"], received["batch job in a script"] = in_a_script(model, rows)
    with TemporaryDirectory() as folder:
        for suffix, write in (("csv", write_csv), ("ndjson", write_ndjson), ("parquet", write_parquet)):
            path = Path(folder) / f"rows.{suffix}"
            write(model, rows, path)
            received[f"{suffix} by name"] = by_file(model, path, by_position=False)
            received[f"{suffix} by position"] = by_file(model, path, by_position=True)
    assert {how: rows_as_bytes(inputs) for how, inputs in received.items()} == dict.fromkeys(received, expected)


@settings(max_examples=20, deadline=None)
@given(models_and_rows(("number", "narrow", "boolean")))
def test_tensors_are_the_same_as_rows(given_: tuple[ServedModel, Rows]) -> None:
    model, rows = given_
    expected = rows_as_bytes(by_request(model, rows, MSGPACK))
    array = np.array([[math.nan if value is None else float(value) for value in row] for row in rows])
    for codec in (MSGPACK, JSON):
        assert rows_as_bytes(by_request(model, array, codec)) == expected
    assert rows_as_bytes(by_job(model, array, MSGPACK)) == expected


@given(TEXT)
def test_text_of_a_csv_file_keeps_its_lines(text: str) -> None:
    feature = FileFeature(name="text", dtype="text", missing=False)
    content = toy_file([feature])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(content)
        model = load_model(path, manifest_of(content, "m", 1))
        table = Path(folder) / "rows.csv"
        write_csv(model, [[f"a\n{text}\r\nb"]], table)
        inputs = by_file(model, table, by_position=True)
    assert rows_as_bytes(inputs) == rows_as_bytes(by_request(model, [[f"a\n{text}\r\nb"]], MSGPACK))
