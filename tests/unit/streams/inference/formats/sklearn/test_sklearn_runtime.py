"""Models of `.skops` files against scikit-learn itself, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InternalError, InvalidValueError, ModelNotReadyError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import Output, decode_input_data
from inferd.streams.inference import Inputs, ServedModel, TrialLimits, load_model, manifest_of, read_model
from inferd.streams.inference.formats.sklearn.library import library
from inferd.streams.inference.formats.sklearn.runtime import _estimators
from inferd.streams.models import trial
from tests.unit.streams.inference.formats.sklearn.sklearn_models import KINDS, Trained, labels, numbers, trained

METHODS: dict[Output, str] = {"prediction": "predict", "probabilities": "predict_proba", "raw": "decision_function"}
_served: dict[str, ServedModel] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def served(name: str, folder: Path) -> ServedModel:
    if name not in _served:
        model = trained(name)
        path = folder / name
        path.write_bytes(model.content)
        _served[name] = load_model(path, manifest_of(model.content, "m", 1))
    return _served[name]


def as_rows(rows: Any) -> list[Any]:
    """Rows as in a request."""
    if isinstance(rows, list):
        return [[text] for text in rows]
    if isinstance(rows, np.ndarray):
        return list(rows.tolist())
    return [{name: _plain(value) for name, value in row.items()} for row in rows.to_dict("records")]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and np.isnan(value) else value


def inputs_of(model: ServedModel, rows: list[Any]) -> Inputs:
    return model.features.inputs(decode_input_data(msgspec.msgpack.encode(rows), MSGPACK, DEFAULT_LIMITS))


def outputs_of(model: ServedModel) -> tuple[Output, ...]:
    return tuple(output for output in METHODS if model.runtime.supports(output))


def part(rows: Any, index: int) -> Any:
    return rows.iloc[index : index + 1] if hasattr(rows, "iloc") else rows[index : index + 1]


def check_equal(name: str, rows: Any, model: ServedModel, estimator: Any) -> None:
    """Each row of a batch has the same bits as when the library scores it alone."""
    outputs = outputs_of(model)
    arrays = model.runtime.predict(inputs_of(model, as_rows(rows)), model.postprocessor.needed(outputs))
    columns = model.postprocessor.columns(arrays, outputs)
    for index in range(len(rows)):
        for output in outputs:
            expected = np.asarray(getattr(estimator, METHODS[output])(part(rows, index)))[0]
            got = columns[output][index]
            if expected.dtype.kind == "f":
                assert np.array(got).tobytes() == expected.astype(np.float64).tobytes(), (name, output, index)
            else:
                assert got == expected.tolist(), (name, output, index)


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_equals_the_librarys_single_rows(name: str, folder: Path) -> None:
    model = trained(name)
    check_equal(name, model.rows[:7], served(name, folder), _sequential(model))


def _sequential(model: Trained) -> Any:
    if hasattr(model.estimator, "n_jobs"):
        model.estimator.set_params(n_jobs=None)
    return model.estimator


EDGES = [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1.5e-45, 3.4e38, -3.4e38, 1e-300, 0.1, 1 / 3, 2**53 - 1.0]
FLOATS = st.one_of(
    st.sampled_from(EDGES),
    st.floats(-1e30, 1e30),
    st.floats(width=32, allow_nan=False, min_value=-(2.0**99), max_value=2.0**99),
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of numbers that overflow on the way
@settings(deadline=None, max_examples=25)
@given(rows=st.lists(st.lists(FLOATS, min_size=4, max_size=4), min_size=1, max_size=5))
@pytest.mark.parametrize("name", ["histogram", "forest", "logistic_three", "boosted"])
def test_numbers_at_the_edges(name: str, rows: list[list[float]], folder: Path) -> None:
    check_equal(name, np.array(rows), served(name, folder), _sequential(trained(name)))


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=5))
@pytest.mark.parametrize("name", ["tfidf", "hashing", "characters", "calibrated_text"])
def test_text_of_every_kind(name: str, texts: list[str], folder: Path) -> None:
    check_equal(name, texts, served(name, folder), trained(name).estimator)


@pytest.mark.parametrize("name", ["tfidf", "hashing", "calibrated_text"])
def test_nested_vectorizers_count_faster(name: str, folder: Path) -> None:
    runtime: Any = served(name, folder).runtime
    vectorizers = [each for each in _estimators(runtime._model, BaseEstimator) if hasattr(each, "build_analyzer")]
    fitted = [each for each in vectorizers if name == "hashing" or hasattr(each, "vocabulary_")]
    assert fitted
    for vectorizer in fitted:
        assert type(vectorizer).__mro__[1].__name__ == type(vectorizer).__name__


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_data_frames(data: st.DataObject, folder: Path) -> None:
    row = st.fixed_dictionaries(
        {
            "age": st.floats(-1e6, 1e6),
            "spend": st.none() | st.floats(-1e6, 1e6),
            "plan": st.none() | st.sampled_from(["basic", "pro", "", "basic ", "数据"]),
            "visits": st.integers(0, 2**50),
            "region": st.integers(1, 3),
            "member": st.booleans(),
            "note": st.text(max_size=20),
        }
    )
    rows = pd.DataFrame(data.draw(st.lists(row, min_size=1, max_size=4)))
    rows["spend"] = rows["spend"].astype(float)
    check_equal("frame_logistic", rows, served("frame_logistic", folder), trained("frame_logistic").estimator)


def test_batches_that_may_differ_are_scored_row_by_row(folder: Path) -> None:
    model = served("linear", folder)
    inputs = inputs_of(model, as_rows(trained("linear").rows))
    whole = model.runtime.predict(inputs, ("prediction",))["prediction"]
    single = [model.runtime.predict(inputs[i : i + 1], ("prediction",))["prediction"][0] for i in range(len(inputs))]
    assert whole.tolist() == single


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        ("logistic", [1.0, None, 1.0, 1.0], "row 1, feature 'x1' is missing"),
        ("forest", [1.0, 1e39, 1.0, 1.0], "row 1, feature 'x1' is above its maximum"),
        ("logistic", [1.0, "1", 1.0, 1.0], "row 1, feature 'x1' is text"),
        ("tfidf", [1.0], "row 1, feature 'text' is a number where text is expected"),
    ],
)
def test_invalid_values_are_rejected_with_row_and_feature(
    name: str, row: list[Any], problem: str, folder: Path
) -> None:
    model = served(name, folder)
    with pytest.raises(InvalidValueError, match=problem):
        inputs_of(model, [*as_rows(trained(name).rows[:1]), row])


def test_an_unknown_category_is_rejected_if_the_encoder_rejects_it(folder: Path) -> None:
    model = served("frame_logistic", folder)
    row = as_rows(trained("frame_logistic").rows[:1])[0]
    inputs_of(model, [row | {"plan": "unheard of"}])
    with pytest.raises(InvalidValueError, match="row 0, feature 'region' is not one of its 3 categories"):
        inputs_of(model, [row | {"region": 9}])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_value_that_a_later_step_rejects_is_reported_with_its_row(folder: Path) -> None:
    model = served("logistic_three", folder)
    rows = np.array([numbers()[0], [1e308, 1e308, 1e308, 1e308]])
    inputs = inputs_of(model, as_rows(rows))
    with pytest.raises(InvalidValueError, match="row 1: a value is too large for a step of the model"):
        model.runtime.predict(inputs, ("prediction",))


def test_labels_probabilities_and_facts(folder: Path) -> None:
    model = served("logistic", folder)
    assert model.manifest.classes == sorted(set(labels().tolist()))
    assert (model.manifest.runtime, model.manifest.objective) == ("sklearn", "LogisticRegression")
    assert [each.dtype for each in served("frame_logistic", folder).manifest.features] == [
        "float64", "float64", "category", "float64", "category", "float64", "text",
    ]  # fmt: skip


def test_a_closed_model_does_not_predict(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(trained("logistic").content)
    model = load_model(path, manifest_of(trained("logistic").content, "m", 1))
    model.runtime.close()
    with pytest.raises(ModelNotReadyError):
        model.runtime.predict(np.zeros((1, 4)), ("prediction",))


def test_models_pass_their_trial() -> None:
    cases = [trial.TrialCase(trained(name).content) for name in ("frame_logistic", "tfidf", "forest", "outliers")]
    assert [verdict.reason for verdict in trial.try_models(cases, TrialLimits(start_s=600))] == [None] * 4


def test_the_library_is_not_imported_before_a_model_needs_it() -> None:
    libraries = ("sklearn", "skops", "pandas", "scipy", "onnxruntime")
    code = f"import sys; import inferd.streams.inference; print([m for m in {libraries} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "estimator",
    [
        AdaBoostClassifier(n_estimators=2),
        BaggingClassifier(n_estimators=2),
        BaggingClassifier(LogisticRegression(), n_estimators=2),
        DecisionTreeClassifier(max_depth=2),
        ExtraTreeClassifier(max_depth=2),
        ExtraTreesClassifier(2, max_depth=2),
        GaussianNB(),
        GradientBoostingClassifier(n_estimators=2),
        HistGradientBoostingClassifier(max_iter=2),
        LogisticRegression(),
        make_pipeline(FeatureUnion([("a", MinMaxScaler()), ("b", SimpleImputer())]), GaussianNB()),
        make_pipeline(KBinsDiscretizer(2, encode="ordinal", quantile_method="averaged_inverted_cdf"), GaussianNB()),
        make_pipeline(RobustScaler(), DecisionTreeClassifier(max_depth=2)),
        make_pipeline(SimpleImputer(), StandardScaler(), GaussianNB()),
        make_pipeline(SimpleImputer(missing_values=-1), GaussianNB()),
        RandomForestClassifier(2, max_depth=2),
    ],
)
def test_missing_values_are_accepted_if_the_estimator_accepts_them(estimator: Any) -> None:
    estimator.fit(numbers(), labels())
    row = numbers()[:1].copy()
    row[0, 1] = np.nan
    try:
        estimator.predict(row)
    except ValueError:
        takes = False
    else:
        takes = True
    assert read_model(skops.io.dumps(estimator)).features[1].missing == takes


def test_a_library_that_is_not_installed_is_named_by_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    path.write_bytes(trained("logistic").content)
    manifest = manifest_of(trained("logistic").content, "m", 1)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    library.cache_clear()
    try:
        with pytest.raises(InternalError, match=r"is not installed here: pip install 'inferd\[sklearn\]'"):
            load_model(path, manifest)
    finally:
        library.cache_clear()
