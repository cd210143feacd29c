"""The CatBoost runtime: bit for bit equal to the estimators' predictions, alone, in any batch, from any thread."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd import ModelManager, RealtimePredictor
from inferd.schemas.errors import InvalidValueError, ModelNotReadyError, SchemaMismatchError
from inferd.schemas.requests.request import OUTPUTS, Output
from inferd.streams.inference.formats.catboost.model_file import read_model_file
from inferd.streams.inference.formats.catboost.runtime import CatBoostRuntime
from inferd.streams.inference.inputs import Inputs, Table
from tests.unit.streams.inference.formats.catboost.catboost_models import (
    KINDS,
    OF_FRAMES,
    Trained,
    frame,
    numbers,
    train,
)

FLOAT32 = np.finfo(np.float32)
EDGES = [
    0.0, -0.0, 5e-324, 2.2250738585072014e-308, float(FLOAT32.smallest_subnormal), float(FLOAT32.tiny),
    float(FLOAT32.eps), float(FLOAT32.max), -float(FLOAT32.max), 16777217.0, 0.1, 1 / 3, float("nan"),
]  # fmt: skip
NUMBERS = st.sampled_from(EDGES) | st.floats(width=32, allow_infinity=False) | st.floats(-3, 3)
ROWS_OF_NUMBERS = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=7)
TEXT = st.sampled_from(["oslo", "Ås", "", "late bag", "unheard of", "日本"]) | st.text(max_size=8)
MIXED_ROW = st.fixed_dictionaries(
    {
        "x": NUMBERS,
        "town": TEXT,
        "y z": NUMBERS,
        "gate": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 7),
        "body": TEXT,
    }
)


def runtime_of(model: Trained, threads: int = 1) -> CatBoostRuntime:
    return CatBoostRuntime(model.content, read_model_file(model.content), threads)


def supported(runtime: CatBoostRuntime) -> tuple[Output, ...]:
    return tuple(output for output in OUTPUTS if runtime.supports(output))


def table_of(data: Any) -> Table:
    numeric = ("x", "y z")
    values = np.empty((len(data), 3), dtype=object)
    for place, name in enumerate(("town", "gate", "body")):
        values[:, place] = [str(value) for value in data[name]]
    matrix = np.ascontiguousarray(data[list(numeric)].to_numpy(np.float64))
    return Table(matrix, values, (True, False, True, False, False))


def theirs(model: Trained, rows: Any, output: Output) -> Any:
    """CatBoost's own result for an output."""
    if output == "prediction":
        return model.model.predict(rows)
    if output == "probabilities":
        return model.model.predict_proba(rows)
    if output == "raw":
        return catboost.CatBoost.predict(model.model, rows, prediction_type="RawFormulaVal")
    if output == "leaves":
        return model.model.calc_leaf_indexes(rows)
    features = model.model.get_cat_feature_indices(), model.model.get_text_feature_indices()
    pool = catboost.Pool(rows, cat_features=features[0] or None, text_features=features[1] or None)
    return model.model.get_feature_importance(pool, type="ShapValues")


def assert_equal_to_the_library(runtime: CatBoostRuntime, model: Trained, inputs: Inputs, rows: Any) -> None:
    outputs = supported(runtime)
    arrays = runtime.predict(inputs, outputs)
    for output in outputs:
        ours, expected = arrays[output], np.asarray(theirs(model, rows, output))
        assert ours.size == len(inputs) * runtime.values_per_row(output)
        if output == "prediction" and runtime.file.classes:
            assert [runtime.file.classes[place] for place in ours.tolist()] == expected.ravel().tolist()
        else:
            assert (ours.shape, ours.tobytes()) == (expected.shape, expected.astype(ours.dtype).tobytes()), output
    for i in range(len(inputs)):
        alone = runtime.predict(inputs[i : i + 1], outputs)
        for output in outputs:
            assert alone[output][0].tobytes() == arrays[output][i].tobytes(), output


@pytest.mark.parametrize("name", KINDS)
def test_every_output_equals_the_estimator_bit_for_bit(name: str) -> None:
    model = train(name)
    rows = numbers(1, 40)
    assert_equal_to_the_library(runtime_of(model), model, rows, rows)


@pytest.mark.parametrize("name", OF_FRAMES)
def test_categories_and_text(name: str) -> None:
    model = train(name)
    data = frame(1, 30)
    assert_equal_to_the_library(runtime_of(model), model, table_of(data), data)


@pytest.mark.parametrize("name", ["logloss", "multiclass", "lossguide"])
@settings(max_examples=12, deadline=None)
@given(rows=ROWS_OF_NUMBERS)
def test_values_at_the_edges_in_batches_of_any_composition(name: str, rows: list[list[float]]) -> None:
    model = train(name)
    matrix = np.array(rows, np.float64)
    assert_equal_to_the_library(runtime_of(model), model, matrix, matrix)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> RealtimePredictor:
    manager = ModelManager(tmp_path_factory.mktemp("models"))
    for name in ("mixed", "onehot"):
        manager.register(name, train(name).content)
    return RealtimePredictor(manager)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(MIXED_ROW, min_size=1, max_size=6))
def test_rows_with_any_text_and_unknown_categories(predictor: RealtimePredictor, rows: list[dict[str, Any]]) -> None:
    data = frame(0, 1).iloc[:0].astype({"gate": object})
    for place, row in enumerate(rows):
        data.loc[place] = [row["x"], row["town"], row["y z"], row["gate"], row["body"]]
    for name in ("mixed", "onehot"):
        expected = train(name).model.predict(data.astype({"x": float, "y z": float})).tolist()
        assert predictor.predict(name, rows) == expected
        assert [predictor.predict(name, row) for row in rows] == expected


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gate": 1.5}, "'gate' is neither text nor an integer"),
        ({"town": None}, "'town' is missing"),
        ({"body": 3}, "'body' is a number where text is expected"),
        ({"x": "3"}, "'x' is text where a number is expected"),
        ({"x": 1e39}, "'x' is beyond float32"),
    ],
)
def test_invalid_values_of_rows(predictor: RealtimePredictor, change: dict[str, Any], problem: str) -> None:
    good = {"x": None, "town": "new", "y z": 1, "gate": 4, "body": "words"}
    assert predictor.predict("mixed", good) in ("no", "yes")
    with pytest.raises(InvalidValueError, match=problem):
        predictor.predict("mixed", good | change)


def test_threads_share_a_model_and_predictions_do_not_depend_on_their_number() -> None:
    model = train("multiclass")
    runtimes = [runtime_of(model, threads) for threads in (1, 3)]
    rows = numbers(4, 300)
    outputs = supported(runtimes[0])
    expected = {output: values.tobytes() for output, values in runtimes[0].predict(rows, outputs).items()}

    def scored(turn: int) -> bool:
        arrays = runtimes[turn % 2].predict(rows, outputs)
        return {output: values.tobytes() for output, values in arrays.items()} == expected

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(scored, range(24)))


def test_rejected_input() -> None:
    runtime = runtime_of(train("rmse"))
    with pytest.raises(SchemaMismatchError, match="expected 3"):
        runtime.predict(np.zeros((1, 4)), ("prediction",))
    with pytest.raises(InvalidValueError, match="has no classes"):
        runtime.predict(numbers(1, 1), ("probabilities",))
    runtime.close()
    runtime.close()
    with pytest.raises(ModelNotReadyError):
        runtime.predict(numbers(1, 1), ("prediction",))


def test_the_package_is_imported_when_a_model_needs_it(tmp_path: Path) -> None:
    (tmp_path / "model.cbm").write_bytes(train("logloss").content)
    script = """
import sys
from pathlib import Path
import inferd.streams.inference
from inferd.streams.inference import load_model, manifest_of
path = Path(sys.argv[1])
manifest = manifest_of(path.read_bytes(), "m", 1)
assert not {"catboost", "xgboost", "scipy", "pandas", "sklearn"} & sys.modules.keys()
load_model(path, manifest)
assert "catboost" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "model.cbm")], check=True)
