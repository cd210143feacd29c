"""Conversion of arrays to the values of results: labels, threshold, top-k, and exact numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from inferd.schemas.errors import InferenceError, InvalidValueError, SchemaMismatchError
from inferd.schemas.models.model import Feature, Manifest, Postprocess
from inferd.schemas.requests.request import OUTPUTS
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.postprocess import Postprocessor, compile_postprocess
from tests.unit.streams.inference.trained_models import KINDS, Trained

Train = Callable[[str], Trained]


def post(objective: str | None, outputs: int = 1, **postprocess: Any) -> Postprocessor:
    spec = Postprocess(**postprocess) if postprocess else None
    manifest = Manifest("m", 1, "lightgbm", "0" * 64, 1, [Feature("a")], objective, outputs, postprocess=spec)
    return compile_postprocess(manifest)


def predictions(postprocessor: Postprocessor, prediction: Any) -> list[Any]:
    return postprocessor.columns({"prediction": np.array(prediction, np.float64)}, ("prediction",))["prediction"]


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_python_values_of_the_same_bits(trained: Train, name: str) -> None:
    model = trained(name)
    runtime = LightGBMRuntime(model.text)
    outputs = tuple(output for output in OUTPUTS if runtime.supports(output))
    postprocessor = post(runtime.objective, runtime.outputs_per_row)
    arrays = runtime.predict(model.rows, postprocessor.needed(outputs))
    assert postprocessor.check(arrays) is None
    columns = postprocessor.columns(arrays, outputs)
    assert tuple(columns) == outputs
    for output in outputs:
        assert len(columns[output]) == len(model.rows)
        assert np.array(columns[output], arrays[output].dtype).tobytes() == arrays[output].tobytes()
        assert json.loads(msgspec.json.encode(columns[output])) == columns[output]
    assert all(type(leaf) is int for leaf in columns["leaves"][0])
    single = postprocessor.values(arrays, outputs, slice(3, 4), single=True)
    assert single == {output: columns[output][3] for output in outputs}
    several = postprocessor.values(arrays, outputs[:1], slice(2, 5), single=False)
    assert several == {outputs[0]: columns[outputs[0]][2:5]}


def test_only_requested_outputs_are_needed() -> None:
    assert post("binary", labels=["no", "yes"]).needed(("prediction",)) == ("prediction",)
    assert post("binary", top_k=2).needed(("prediction", "leaves")) == ("prediction", "leaves")


def test_binary_labels_and_threshold() -> None:
    p = [0.1, 0.5, np.nextafter(0.5, 0), 0.9]
    assert predictions(post("binary", labels=["no", "yes"]), p) == ["no", "yes", "no", "yes"]
    assert predictions(post("binary", labels=["no", "yes"], threshold=0.9), p) == ["no", "no", "no", "yes"]
    assert predictions(post("binary", threshold=0.1), p) == [1, 1, 1, 1]
    assert predictions(post("cross_entropy", threshold=0.0), p) == [1, 1, 1, 1]
    assert predictions(post("binary"), p) == p


def test_multiclass_labels() -> None:
    p = [[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]]
    assert predictions(post("multiclass", 3, labels=["a", "b", "c"]), p) == ["b", "a", "c"]
    assert predictions(post("multiclassova", 3), p) == p


def test_top_k_breaks_ties_by_class() -> None:
    p = [[0.2, 0.4, 0.4], [0.3, 0.3, 0.3]]
    top = predictions(post("multiclass", 3, labels=["a", "b", "c"], top_k=2), p)
    assert top == [
        [{"label": "b", "probability": 0.4}, {"label": "c", "probability": 0.4}],
        [{"label": "a", "probability": 0.3}, {"label": "b", "probability": 0.3}],
    ]
    assert predictions(post("multiclass", 3, top_k=1), p) == [
        [{"label": 1, "probability": 0.4}],
        [{"label": 0, "probability": 0.3}],
    ]
    assert predictions(post("binary", top_k=2, labels=["no", "yes"]), [0.75]) == [
        [{"label": "yes", "probability": 0.75}, {"label": "no", "probability": 0.25}]
    ]


def test_other_outputs_are_unchanged(trained: Train) -> None:
    model = trained("multiclass")
    arrays = LightGBMRuntime(model.text).predict(model.rows, ("prediction", "probabilities", "raw"))
    columns = post("multiclass", 3, labels=["a", "b", "c"]).columns(arrays, ("raw", "probabilities", "prediction"))
    assert list(columns) == ["raw", "probabilities", "prediction"]
    assert columns["probabilities"] == arrays["probabilities"].tolist()
    assert set(columns["prediction"]) <= {"a", "b", "c"}


def test_rows_that_are_not_finite_are_found() -> None:
    postprocessor = post("regression")
    assert postprocessor.check({"prediction": np.array([1.0, np.inf, 2.0, np.nan])}).tolist() == [  # type: ignore[union-attr]
        False, True, False, True
    ]  # fmt: skip
    arrays: Any = {
        "prediction": np.zeros(3),
        "contributions": np.array([[[0.0, 1.0]], [[0.0, 0.0]], [[np.nan, 1.0]]]),
        "leaves": np.zeros((3, 2), np.int32),
        "raw": np.array([-np.inf, 0.0, 0.0]),
    }
    assert postprocessor.check(arrays).tolist() == [True, False, True]  # type: ignore[union-attr]
    assert postprocessor.check({"prediction": np.zeros(3)}) is None


@pytest.mark.parametrize(
    ("objective", "outputs", "postprocess", "error", "message"),
    [
        ("regression", 1, {"threshold": 0.5}, InvalidValueError, "threshold.*regression has none"),
        (None, 3, {"labels": ["a", "b", "c"]}, InvalidValueError, "custom has none"),
        ("lambdarank", 1, {"top_k": 1}, InvalidValueError, "lambdarank"),
        ("multiclass", 3, {"threshold": 0.5}, InvalidValueError, "for binary models"),
        ("binary", 1, {"threshold": 0.5, "top_k": 1}, InvalidValueError, "cannot be combined with top_k"),
        ("binary", 1, {"threshold": 1.5}, InvalidValueError, "between 0 and 1"),
        ("binary", 1, {"threshold": float("nan")}, InvalidValueError, "between 0 and 1"),
        ("binary", 1, {"labels": ["a"]}, SchemaMismatchError, "1 labels for 2 classes"),
        ("multiclass", 3, {"labels": ["a", "b"]}, SchemaMismatchError, "2 labels for 3 classes"),
        ("multiclass", 3, {"labels": ["a", "b", "a"]}, InvalidValueError, "same label twice"),
        ("multiclass", 3, {"top_k": 0}, InvalidValueError, "between 1 and the 3"),
        ("binary", 1, {"top_k": 3}, InvalidValueError, "between 1 and the 2"),
    ],
)
def test_outputs_that_an_objective_does_not_allow(
    objective: str | None, outputs: int, postprocess: dict[str, Any], error: type[InferenceError], message: str
) -> None:
    with pytest.raises(error, match=message):
        post(objective, outputs, **postprocess)
