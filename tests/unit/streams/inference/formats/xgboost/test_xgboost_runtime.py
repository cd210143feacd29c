"""The XGBoost runtime: equal bit for bit to `Booster.predict`, alone, in any batch, from any thread."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inferd.schemas.errors import InvalidValueError, ModelNotReadyError, SchemaMismatchError
from inferd.schemas.requests.request import OUTPUTS, Output
from inferd.streams.inference.formats.xgboost.model_file import read_model_file
from inferd.streams.inference.formats.xgboost.runtime import XGBoostRuntime
from inferd.streams.inference.runtime import ModelRuntime
from tests.unit.streams.inference.formats.xgboost.xgboost_models import (
    FAST,
    FEATURES,
    KINDS,
    Trained,
    loaded,
    matrix,
    train,
)

PARAMETER: dict[Output, dict[str, bool]] = {
    "prediction": {},
    "raw": {"output_margin": True},
    "contributions": {"pred_contribs": True},
    "leaves": {"pred_leaf": True},
}
FLOAT32 = np.finfo(np.float32)
EDGES = [
    0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 2.2250738585072014e-308, float(FLOAT32.smallest_subnormal) / 2,
    float(FLOAT32.smallest_subnormal), float(FLOAT32.tiny), -float(FLOAT32.tiny), float(FLOAT32.eps),
    float(FLOAT32.max), -float(FLOAT32.max), 3.4028235677973362e38, 16777216.0, 16777217.0, 0.1, 1 / 3, float("nan"),
]  # fmt: skip
VALUES = st.sampled_from(EDGES) | st.floats(width=32, allow_infinity=False) | st.floats(-4, 4) | st.integers(-1, 7)
ROWS_OF_VALUES = st.lists(st.lists(VALUES, min_size=FEATURES, max_size=FEATURES), min_size=1, max_size=8)


def runtime_of(model: Trained, threads: int = 1) -> XGBoostRuntime:
    return XGBoostRuntime(model.content, read_model_file(model.content), threads)


def supported(runtime: ModelRuntime) -> tuple[Output, ...]:
    return tuple(output for output in OUTPUTS if runtime.supports(output))


def same(ours: Any, theirs: Any) -> bool:
    """Equal shapes and, at the precision of the library, equal bits."""
    return bool(ours.shape == theirs.shape and np.array_equal(ours.astype(np.float32), theirs, equal_nan=True))


def assert_equal_to_the_library(runtime: XGBoostRuntime, model: Trained, rows: NDArray[np.float64]) -> None:
    outputs = supported(runtime)
    arrays = runtime.predict(rows, outputs)
    for output in set(outputs) - {"probabilities"}:
        assert same(arrays[output], model.expected(rows, **PARAMETER[output])), output
        if output != "prediction":
            assert arrays[output].size == len(rows) * runtime.values_per_row(output)
    for i, row in enumerate(rows):
        alone = runtime.predict(row[None, :].copy(), outputs)
        for output in outputs:
            assert alone[output][0].tobytes() == arrays[output][i].tobytes(), output


@pytest.mark.parametrize("name", KINDS)
def test_every_output_equals_booster_predict_bit_for_bit(name: str) -> None:
    for file_format in ("ubj", "json"):
        model = train(name, file_format)
        runtime = runtime_of(model)
        outputs = supported(runtime)
        assert ("leaves" in outputs) == (not name.startswith("linear"))
        assert ("contributions" in outputs) == (not name.startswith("vector"))
        assert_equal_to_the_library(runtime, model, matrix(1, 70))


@pytest.mark.parametrize("name", ["binary", "softmax", "quantiles", "vectors", "dart", "linear_classes", "categories"])
@settings(max_examples=15, deadline=None)
@given(rows=ROWS_OF_VALUES)
def test_values_at_the_edges_in_batches_of_any_composition(name: str, rows: list[list[float]]) -> None:
    model = train(name)
    assert_equal_to_the_library(runtime_of(model), model, np.array(rows, np.float64))


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 130])
def test_a_row_has_the_same_prediction_anywhere_in_a_batch(rows: int) -> None:
    model = train("dart")
    runtime = runtime_of(model)
    many = matrix(3, rows)
    assert same(runtime.predict(many, ("prediction",))["prediction"], model.expected(many))


@pytest.mark.parametrize("name", ["binary", "softprob", "softmax", "vector_classes"])
def test_probabilities_are_those_of_the_classifier(name: str) -> None:
    model = train(name)
    rows = matrix(1, 40)
    arrays = runtime_of(model).predict(rows, ("probabilities", "prediction", "raw"))
    classifier = xgboost.XGBClassifier()
    classifier.load_model(bytearray(train("softprob").content if name == "softmax" else model.content))
    assert same(arrays["probabilities"], classifier.predict_proba(rows))


@pytest.mark.parametrize("name", ["regression", "cox", "labels", "hinge"])
def test_no_probabilities_without_classes(name: str) -> None:
    with pytest.raises(InvalidValueError, match="has no classes"):
        runtime_of(train(name)).predict(matrix(1, 2), ("prediction", "probabilities"))


def test_the_wrapper_predicts_with_its_best_iteration_and_a_booster_with_all() -> None:
    x = matrix()
    y = np.random.default_rng(5).integers(0, 2, len(x))
    classifier = xgboost.XGBClassifier(n_estimators=30, early_stopping_rounds=2, **FAST)
    classifier.fit(x[:100], y[:100], eval_set=[(x[100:], y[100:])], verbose=False)
    booster = classifier.get_booster()
    assert classifier.best_iteration + 1 < booster.num_boosted_rounds()
    booster.set_attr(scikit_learn='{"_estimator_type": "classifier"}')  # as `XGBClassifier.save_model` does
    runtime = runtime_of(loaded(bytes(booster.save_raw("ubj"))))
    arrays = runtime.predict(x, ("probabilities", "leaves"))
    assert same(arrays["probabilities"], classifier.predict_proba(x))
    assert same(arrays["leaves"], classifier.apply(x))
    booster.set_attr(scikit_learn=None)
    whole = loaded(bytes(booster.save_raw("ubj")))
    assert same(runtime_of(whole).predict(x, ("prediction",))["prediction"], whole.expected(x))


def test_threads_share_a_model_and_predictions_do_not_depend_on_their_number() -> None:
    for name in ("softprob", "linear"):
        model = train(name)
        runtimes = [runtime_of(model, threads) for threads in (1, 3)]
        rows = matrix(4, 300)
        outputs = supported(runtimes[0])
        expected = {output: values.tobytes() for output, values in runtimes[0].predict(rows, outputs).items()}

        def score(turn: int) -> bool:
            arrays = runtimes[turn % 2].predict(rows, outputs)  # noqa: B023  # run within the loop
            return {output: values.tobytes() for output, values in arrays.items()} == expected  # noqa: B023

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(score, range(48)))


def test_rejected_input() -> None:
    runtime = runtime_of(train("binary"))
    with pytest.raises(SchemaMismatchError, match="expected"):
        runtime.predict(np.zeros((1, FEATURES + 1)), ("prediction",))
    with pytest.raises(InvalidValueError, match="row 1, feature 2 is beyond float32"):
        runtime.predict(np.array([[0, 0, 0, 0], [0, 0, 3.4028235677973366e38, 0]]), ("prediction",))
    with pytest.raises(InvalidValueError, match="linear"):
        runtime_of(train("linear")).predict(matrix(1, 1), ("leaves",))
    runtime.close()
    runtime.close()
    with pytest.raises(ModelNotReadyError):
        runtime.predict(matrix(1, 1), ("prediction",))


def test_neither_the_package_nor_its_imports_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.ubj").write_bytes(train("binary").content)
    script = """
import sys
from pathlib import Path
import inferd.streams.inference
assert "libxgboost" not in Path("/proc/self/maps").read_text()
from inferd.streams.inference import load_model, manifest_of
path = Path(sys.argv[1])
served = load_model(path, manifest_of(path.read_bytes(), "m", 1))
assert "libxgboost" in Path("/proc/self/maps").read_text()
assert not {"xgboost", "scipy", "pandas", "sklearn"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "model.ubj")], check=True)
