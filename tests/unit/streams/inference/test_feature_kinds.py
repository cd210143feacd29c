"""Models with non-numeric features and with labels as predictions: from a file to results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InferenceError, InvalidValueError, SchemaMismatchError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Feature
from inferd.schemas.requests import ListRows, NamedRows
from inferd.streams.inference import (
    DEFAULT_TRIAL_LIMITS,
    FileFeature,
    ModelCatalog,
    ServedModel,
    Table,
    label_codes,
    load_model,
    manifest_of,
    read_model,
    reconcile,
    register,
    unregister,
)
from inferd.streams.models.trial.process import CaseFile, Verdict, judge
from tests.fixtures.scoring import Fetched, both, catalog_of, score
from tests.fixtures.toy_format import TOY, numbers_of, toy_file

BODY = FileFeature(name="body", dtype="text", missing=False)
AGE = FileFeature(name="age", dtype="float32")
COUNT = FileFeature(name="count", dtype="int64", missing=False, min=0, max=255)
CITY = FileFeature(name="city", dtype="category")
PLAN = FileFeature(name="plan", dtype="category", categories=("basic", "pro"))
GRADE = FileFeature(name="grade", dtype="category", categories=(1, 2, 3), unknown=True)
SIZE = FileFeature(name="size", dtype="category", categories=("S", "M"), coded=True)
ALL = (BODY, AGE, COUNT, CITY, PLAN, GRADE, SIZE)
ROW: list[Any] = ["it crashes", 1.5, 3, "Oslo", "pro", 2, "M"]
LABELS = ("bug", "question", "praise")


@pytest.fixture(autouse=True)
def _toy() -> Iterator[None]:
    register(TOY)
    yield
    unregister("toy")


def served(
    tmp_path: Path, features: Sequence[FileFeature] = ALL, classes: Sequence[str] = LABELS, **given: Any
) -> ServedModel:
    content = toy_file(features, classes)
    path = tmp_path / "model"
    path.write_bytes(content)
    manifest = manifest_of(content, "tickets", 1, given)
    assert judge(CaseFile(str(path), manifest), DEFAULT_TRIAL_LIMITS) == (Verdict(True, None, 1), False)
    return load_model(path, manifest)


def table_of(model: ServedModel, *rows: list[Any] | dict[str, Any]) -> Table:
    given: Any = list(rows)
    data = ListRows(given, False) if isinstance(rows[0], list) else NamedRows(given, False)
    table = model.features.inputs(data)
    assert isinstance(table, Table)
    return table


def columns_of(model: ServedModel, *rows: Any) -> list[list[Any]]:
    return [column.tolist() for column in table_of(model, *rows).columns()]


def test_text_is_in_object_columns_and_numbers_are_in_a_float_matrix(tmp_path: Path) -> None:
    table = table_of(served(tmp_path), ROW, ["", None, 0, None, "basic", None, "S"])
    assert table.numbers.dtype == np.float64
    assert table.numbers.flags.c_contiguous
    np.testing.assert_array_equal(table.numbers, [[1.5, 3, 1], [math.nan, 0, 0]])
    assert table.values.tolist() == [["it crashes", "Oslo", "pro", 2], ["", None, "basic", None]]
    assert [column.dtype.kind for column in table.columns()] == ["O", "f", "f", "O", "O", "O", "f"]


def test_rows_by_name_and_by_position_are_the_same(tmp_path: Path) -> None:
    model = served(tmp_path)
    named = dict(zip([feature.name for feature in ALL], ROW, strict=True))
    shuffled = dict(sorted(named.items()))
    assert columns_of(model, named) == columns_of(model, shuffled) == columns_of(model, ROW)
    other_order = served(tmp_path, preprocess={"order": sorted(named)})
    assert columns_of(other_order, list(shuffled.values())) == columns_of(model, ROW)


def test_a_label_is_predicted_with_its_probability(tmp_path: Path) -> None:
    model = served(tmp_path)
    table = table_of(model, ROW, ["other", 1, 1, "Bergen", "basic", 3, "S"])
    arrays = model.runtime.predict(table, model.postprocessor.needed(("prediction", "probabilities")))
    columns = model.postprocessor.columns(arrays, ("prediction", "probabilities"))
    expected = [LABELS[int(number * 3)] for number in numbers_of(table)]
    assert columns["prediction"] == expected
    assert [LABELS[row.index(1.0)] for row in columns["probabilities"]] == expected
    assert model.manifest.classes == list(LABELS)


def test_labels_threshold_and_top_k_of_a_model_with_labels(tmp_path: Path) -> None:
    renamed = served(tmp_path, postprocess={"labels": ["B", "Q", "P"]})
    top = served(tmp_path, postprocess={"top_k": 2})
    binary = served(tmp_path, classes=["no", "yes"], postprocess={"threshold": 0.5})
    for model, check in ((renamed, lambda v: v in {"B", "Q", "P"}), (top, lambda v: v[0]["probability"] == 1.0),
                         (binary, lambda v: v in {"no", "yes"})):  # fmt: skip
        arrays = model.runtime.predict(table_of(model, ROW), model.postprocessor.needed(("prediction",)))
        (value,) = model.postprocessor.columns(arrays, ("prediction",))["prediction"]
        assert check(value)
    with pytest.raises(SchemaMismatchError, match="2 labels for 3 classes"):
        served(tmp_path, postprocess={"labels": ["a", "b"]})


def test_labels_that_a_library_predicts_become_their_indexes() -> None:
    assert label_codes(np.array(["b", "a"], dtype=object), ("a", "b")).tolist() == [1, 0]
    assert label_codes([2, 1], (1, 2)).dtype == np.int32


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (0, 7, "feature 'body' is a number where text is expected"),
        (0, True, "feature 'body' is a boolean where text is expected"),
        (0, None, "feature 'body' is missing, and required"),
        (1, "old", "feature 'age' is text where a number is expected"),
        (1, 1e39, "feature 'age' is beyond float32"),
        (2, 1.5, "feature 'count' is not an integer"),
        (2, math.nan, "feature 'count' is missing, and required"),
        (2, 256, "feature 'count' is above its maximum of 255"),
        (3, 1.5, "feature 'city' is neither text nor an integer"),
        (3, True, "feature 'city' is neither text nor an integer"),
        (4, "gold", "feature 'plan' is not one of its 2 categories"),
        (4, 1, "feature 'plan' is not one of its 2 categories"),
        (5, "2", "feature 'grade' is of another type than its categories"),
        (5, True, "feature 'grade' is of another type than its categories"),
        (5, 1.5, "feature 'grade' is of another type than its categories"),
        (5, math.inf, "feature 'grade' is of another type than its categories"),
        (6, "L", "feature 'size' is not one of its 2 categories"),
    ],
)
def test_an_invalid_value_is_named(tmp_path: Path, place: int, value: Any, problem: str) -> None:
    row = [*ROW[:place], value, *ROW[place + 1 :]]
    with pytest.raises(InvalidValueError) as caught:
        table_of(served(tmp_path), ROW, row)
    assert caught.value.message.startswith(f"row 1, {problem}")


def test_a_category_becomes_the_models_category(tmp_path: Path) -> None:
    model = served(tmp_path)
    columns = columns_of(model, [*ROW[:3], 47, "pro", 2.0, "M"], [*ROW[:3], "47", "pro", 9.0, "M"])
    assert columns[3] == ["47", "47"]
    assert columns[5] == [2, 9]
    assert {type(value) for value in columns[5]} == {int}


def test_unknown_and_missing_values_follow_the_manifest(tmp_path: Path) -> None:
    preprocess = {"unknown_category": "missing", "defaults": {"plan": "basic", "body": "-", "count": 1}}
    model = served(tmp_path, preprocess=preprocess)
    columns = columns_of(model, [None, None, None, "x", "gold", 9, "L"])
    assert repr(columns) == repr([["-"], [math.nan], [1.0], ["x"], ["basic"], [None], [math.nan]])
    assert [feature.required for feature in model.manifest.features] == [None] * len(ALL)
    assert columns_of(model, {"age": 1, "city": "x", "grade": 1, "size": "S"})[0] == ["-"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"features": [{"name": "body", "dtype": "int64"}]}, "'body' is of dtype int64, in the model file it is text"),
        ({"features": [{"name": "age", "dtype": "text"}]}, "'age' is of dtype text, in the model file it is float32"),
        ({"features": [{"name": "plan", "dtype": "category", "categories": ["a"]}]}, "has other categories"),
        ({"features": [{"name": "count", "required": False}]}, "takes no missing value"),
        ({"preprocess": {"defaults": {"body": 3}}}, "has a default that is a number where text is expected"),
        ({"preprocess": {"defaults": {"plan": "gold"}}}, "has a default that is not one of its 2 categories"),
        ({"classes": ["x"]}, "classes is"),
    ],
)
def test_a_manifest_that_contradicts_its_file_is_rejected(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaMismatchError, match=problem):
        manifest_of(toy_file(ALL, LABELS), "tickets", 1, given)


def test_a_file_without_names_takes_them_from_the_manifest(tmp_path: Path) -> None:
    plain = (FileFeature(name="x0"), FileFeature(name="x1", dtype="text"))
    content = toy_file(plain, named=False)
    names = [{"name": "age"}, {"name": "body"}]
    manifest = manifest_of(content, "m", 1, {"features": names})
    assert [(f.name, f.dtype) for f in manifest.features] == [("age", "float64"), ("body", "text")]
    assert manifest_of(content, "m", 1).features == [Feature("x0"), Feature("x1", "text")]
    path = tmp_path / "model"
    path.write_bytes(content)
    assert load_model(path, manifest).runtime.feature_names == ("age", "body")
    assert reconcile(manifest, read_model(content)) == manifest
    with pytest.raises(SchemaMismatchError, match="'age', which is not a feature"):
        manifest_of(content, "m", 1, {"features": [{"name": "age"}]})


def test_a_file_without_features_takes_them_from_the_manifest(tmp_path: Path) -> None:
    content = toy_file((), named=False)
    with pytest.raises(SchemaMismatchError, match=r"list all of them in a manifest"):
        manifest_of(content, "m", 1)
    features = [{"name": "age"}, {"name": "body", "dtype": "text"}, {"name": "city", "dtype": "category"}]
    path = tmp_path / "model"
    path.write_bytes(content)
    model = load_model(path, manifest_of(content, "m", 1, {"features": features}))
    assert columns_of(model, [1, "text", "Oslo"]) == [[1.0], ["text"], ["Oslo"]]


def test_a_model_of_numbers_accepts_a_matrix_whatever_its_format(tmp_path: Path) -> None:
    model = served(tmp_path, (AGE, SIZE), ())
    matrix = model.features.inputs(ListRows([[1, "M"]], True))
    assert isinstance(matrix, np.ndarray)
    assert matrix.tolist() == [[1.0, 1.0]]


def test_rows_with_missing_or_unknown_columns_are_rejected(tmp_path: Path) -> None:
    model = served(tmp_path)
    named = dict(zip([feature.name for feature in ALL], ROW, strict=True))
    rows: list[tuple[Any, str]] = [
        (ROW[:-1], "row 0 has 6 features, expected 7"),
        ({**named, "town": 1}, "unknown 'town'"),
        ({name: value for name, value in named.items() if name != "body"}, "missing 'body'"),
    ]
    for row, problem in rows:
        with pytest.raises(InferenceError, match=problem):
            table_of(model, row)


def catalog_of_texts(tmp_path: Path) -> ModelCatalog:
    models = []
    for name, features in (("tickets", ALL), ("texts", (BODY,))):
        content = toy_file(features, LABELS)
        (tmp_path / name).write_bytes(content)
        models.append(load_model(tmp_path / name, manifest_of(content, name, 1, {})))
    return catalog_of(*models)


def in_json(model_id: str, row: Any) -> Fetched:
    body = {"id": "r", "model_id": model_id, "input_data": row}
    return Fetched(json.dumps(body).encode(), headers=(("content-type", b"application/json"),))


def in_msgpack(model_id: str, row: Any) -> Fetched:
    return Fetched(msgpack.packb({"id": "r", "model_id": model_id, "input_data": row}))


NAMED_ROW: dict[str, Any] = dict(zip([feature.name for feature in ALL], ROW, strict=True))
ODD_ROWS: tuple[tuple[str, Any], ...] = (
    ("tickets", {**NAMED_ROW, "plan": "gold"}), ("tickets", {**NAMED_ROW, "count": 300}), ("tickets", {"body": "x"}),
    ("tickets", {**NAMED_ROW, "other": 1}), ("tickets", {**NAMED_ROW, "body": ["x"]}), ("tickets", [ROW, ROW]),
    ("tickets", [NAMED_ROW]), ("tickets", []), ("tickets", [[]]), ("texts", "x"), ("texts", ["x"]), ("texts", [["x"]]),
    ("texts", {"body": 'a: "b"'}), ("texts", {"body": 1}), ("texts", None), ("texts", {}), ("texts", {"body": {}}),
)  # fmt: skip


@pytest.mark.parametrize("write", [in_json, in_msgpack])
def test_rows_with_text_are_read_together_as_one_by_one(tmp_path: Path, write: Callable[[str, Any], Fetched]) -> None:
    fast, typed = both(catalog_of_texts(tmp_path))
    usual = [write("tickets", {**NAMED_ROW, "body": f"text: {n}"}) for n in range(100)]
    assert fast.prepare([(0, usual)], 0).groups[0].counts == [1] * 100
    odd = [write(name, row) for name, row in ODD_ROWS]
    for batch in (usual, odd, usual[:70] + odd + usual[70:], *([one] for one in odd), [odd[9]] * 3, [odd[10]] * 3):
        assert list(score(fast, batch).values) == score(typed, batch).values


def test_rows_with_text_are_decoded_a_few_at_a_time(tmp_path: Path) -> None:
    features = catalog_of_texts(tmp_path).versions()[-1].served.features  # type: ignore[union-attr]
    rows = [msgpack.packb(NAMED_ROW)] * 200
    table, fits = features.gather(MSGPACK, [*rows, msgpack.packb({})], DEFAULT_LIMITS)
    assert fits.tolist() == [True] * 192 + [False] * 9
    assert len(table) == 192
