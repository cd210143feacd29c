"""Manifests against model files: completed, consistent, or rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest

from inferd.schemas.errors import InvalidValueError, MalformedError, SchemaMismatchError
from inferd.schemas.models.model import Feature, FileCategories, Manifest
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.inference.manifests import manifest_of, reconcile
from tests.unit.streams.inference.trained_models import FAST, PandasTrained, Trained, frame

Train = Callable[[str], Trained]


def test_a_manifest_is_filled_in_from_the_file(trained: Train) -> None:
    text = trained("multiclass").text
    file = read_model_file(text)
    assert manifest_of(text, "m", 3) == Manifest(
        model_id="m",
        version=3,
        runtime="lightgbm",
        sha256=file.sha256,
        size=len(text),
        features=[Feature(f"Column_{i}") for i in range(6)],
        objective="multiclass",
        outputs=3,
    )
    assert manifest_of(text, "m", 3, file=file) == manifest_of(text, "m", 3)


CARRIERS = FileCategories("text", 5, ["9E", "AA", "B6", "ü x", "never"])


def test_categories_are_described_and_stay_in_the_file(pandas_trained: PandasTrained) -> None:
    assert manifest_of(pandas_trained.text, "m", 1).features == [
        Feature("distance"),
        Feature("carrier", "category", file_categories=CARRIERS),
        Feature("gate", "category", file_categories=FileCategories("integer", 3, [3, 5, 90])),
        Feature("night", "category", file_categories=FileCategories("boolean", 2, [False, True])),
        Feature("factor", "category", file_categories=FileCategories("number", 3, [-2.0, 0.5, 1.5])),
        Feature("delay"),
    ]


def test_integer_codes_are_int64(trained: Train) -> None:
    features = manifest_of(trained("int_coded").text, "m", 1).features
    assert [feature.dtype for feature in features] == ["float64"] * 4 + ["int64"] * 2


def test_custom_objectives(trained: Train) -> None:
    manifest = manifest_of(trained("custom_multi").text, "m", 1)
    assert (manifest.objective, manifest.outputs) == (None, 3)


def test_the_users_manifest_takes_precedence(pandas_trained: PandasTrained, trained: Train) -> None:
    overrides = {
        "features": [
            {"name": "delay", "min": 0, "required": True},
            {"name": "carrier", "dtype": "category", "required": False},
            {"name": "gate", "dtype": "int64"},
        ],
        "preprocess": {"defaults": {"distance": 1}, "unknown_category": "missing"},
        "labels": {"team": "flights"},
    }
    manifest = manifest_of(pandas_trained.text, "m", 1, overrides)
    by_name = {feature.name: feature for feature in manifest.features}
    assert list(by_name) == ["distance", "carrier", "gate", "night", "factor", "delay"]
    assert by_name["delay"] == Feature("delay", min=0, required=True)
    assert by_name["carrier"] == Feature("carrier", "category", required=False, file_categories=CARRIERS)
    assert by_name["gate"] == Feature("gate", "int64")
    assert by_name["night"].dtype == "category"
    assert manifest.labels == {"team": "flights"}
    relabelled = manifest_of(
        trained("int_coded").text,
        "m",
        1,
        {"features": [{"name": "Column_5", "dtype": "category", "categories": ["no", "yes"]}]},
    )
    assert relabelled.features[5].categories == ["no", "yes"]


def test_a_feature_that_names_no_dtype_keeps_that_of_the_file(pandas_trained: PandasTrained, trained: Train) -> None:
    said = {"features": [{"name": "carrier", "required": False}, {"name": "delay", "min": 0}]}
    by_name = {feature.name: feature for feature in manifest_of(pandas_trained.text, "m", 1, said).features}
    assert by_name["carrier"] == Feature("carrier", "category", required=False, file_categories=CARRIERS)
    assert by_name["delay"] == Feature("delay", min=0)
    coded = manifest_of(trained("int_coded").text, "m", 1, {"features": [{"name": "Column_5", "required": True}]})
    assert coded.features[5] == Feature("Column_5", "int64", required=True)
    malformed: tuple[object, ...] = ([1], [{"name": 1}], [{}], "x")
    for broken in malformed:
        with pytest.raises(MalformedError):
            manifest_of(pandas_trained.text, "m", 1, {"features": broken})


def test_a_manifest_is_completed_by_its_file(pandas_trained: PandasTrained) -> None:
    manifest = manifest_of(pandas_trained.text, "m", 1)
    file = read_model_file(pandas_trained.text)
    complete = reconcile(manifest, file)
    assert [feature.categories for feature in complete.features[1:5]] == [*map(list, (file.categories or {}).values())]
    assert reconcile(complete, file) == complete
    again = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    assert reconcile(again, file) == complete
    for earlier in (manifest, complete):
        assert manifest_of(pandas_trained.text, "m", 1, msgspec.to_builtins(earlier)) == manifest


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"features": [{"name": "other"}]}, SchemaMismatchError, "features names 'other', which is not a feature"),
        ({"features": [{"name": "Column_0"}] * 2}, SchemaMismatchError, "names 'Column_0' twice"),
        ({"features": [{"name": f"Column_{i}"} for i in range(7)]}, SchemaMismatchError, "'Column_6'"),
        ({"features": [{"name": f"Column_{5 - i}"} for i in range(6)]}, SchemaMismatchError, "another order"),
        ({"features": [{"name": "Column_0", "dtype": "category"}]}, SchemaMismatchError, "without categories"),
        (
            {"objective": "regression"},
            SchemaMismatchError,
            "'regression', in the model file it is 'binary'",
        ),
        ({"outputs": 2}, SchemaMismatchError, "outputs is 2"),
        ({"sha256": "0" * 64}, SchemaMismatchError, "sha256"),
        ({"size": 1}, SchemaMismatchError, "size is 1"),
        ({"model_id": "other"}, SchemaMismatchError, "model_id is 'other', and 'm' is deployed"),
        ({"version": 9}, SchemaMismatchError, "version is 9"),
        ({"runtime": "onnx"}, SchemaMismatchError, "runtime is 'onnx'"),
        ({"postprocess": {"labels": ["a"]}}, SchemaMismatchError, "1 labels for 2"),
        ({"postprocess": {"threshold": 2}}, InvalidValueError, "threshold"),
        ({"preprocess": {"order": ["Column_0"]}}, SchemaMismatchError, "leaves out"),
        ({"featuers": []}, MalformedError, "featuers"),
        ({"features": [{"name": "Column_0", "dtype": "complex"}]}, MalformedError, r"features\[0\]\.dtype"),
        ({"preprocess": {"unknown": 1}}, MalformedError, "preprocess"),
    ],
)
def test_contradictions_are_rejected(
    trained: Train, overrides: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        manifest_of(trained("binary").text, "m", 1, overrides)


def test_other_categories_than_the_files_are_rejected(pandas_trained: PandasTrained) -> None:
    for name, categories in (("carrier", ["AA"]), ("night", [0, 1]), ("gate", [5, 3, 90])):
        given = {"features": [{"name": name, "dtype": "category", "categories": categories}]}
        with pytest.raises(SchemaMismatchError, match=f"'{name}' has other categories"):
            manifest_of(pandas_trained.text, "m", 1, given)


def test_another_description_than_the_files_is_rejected(pandas_trained: PandasTrained) -> None:
    feature = {"name": "gate", "dtype": "category", "file_categories": {"kind": "integer", "count": 4}}
    with pytest.raises(SchemaMismatchError, match="'gate' describes other categories"):
        manifest_of(pandas_trained.text, "m", 1, {"features": [feature]})


def test_the_manifest_names_the_features_that_have_the_files_categories() -> None:
    data = frame()[["distance", "gate"]].assign(size=np.resize([0, 1, 2], 300), age=np.resize([1, 2], 300))
    data["gate"] = data.gate.cat.as_ordered()
    booster = lightgbm.train({**FAST, "objective": "regression"}, lightgbm.Dataset(data, data.distance), 2)
    text = booster.model_to_string().encode()
    with pytest.raises(SchemaMismatchError, match=r'pandas categories of 1 features.*"dtype":"category"'):
        manifest_of(text, "m", 1)
    manifest = manifest_of(text, "m", 1, {"features": [{"name": "gate", "dtype": "category"}]})
    assert reconcile(manifest, read_model_file(text)).features[1] == Feature("gate", "category", [3, 5, 90])
