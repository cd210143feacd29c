"""Models whose predictions for a row differ in a batch are detected by the trial and by the load, and scored row by
row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import ListRows, Output
from inferd.streams.inference import (
    DEFAULT_TRIAL_LIMITS,
    Arrays,
    FileFeature,
    Inputs,
    ModelCatalog,
    ServedModel,
    Version,
    load_model,
    manifest_of,
    register,
    scores_batches,
    unregister,
)
from inferd.streams.inference.features import sample_inputs, varied_inputs
from inferd.streams.inference.row_by_row import RowByRow, is_equal_alone
from inferd.streams.models.trial.process import CaseFile, judge
from tests.fixtures.lane import sum_model
from tests.fixtures.toy_format import TOY, ToyRuntime, numbers_of, toy_file

FEATURES = (
    FileFeature(name="x", dtype="float32"),
    FileFeature(name="n", dtype="int64", missing=False, min=-5, max=5),
    FileFeature(name="vip", dtype="bool"),
    FileFeature(name="size", dtype="category", categories=("S", "M"), coded=True),
    FileFeature(name="plan", dtype="category", categories=("basic", "pro"), missing=False),
    FileFeature(name="city", dtype="category", missing=False),
    FileFeature(name="body", dtype="text"),
)
BOTH: tuple[Output, ...] = ("prediction", "probabilities")


class Unequal(ToyRuntime):
    """Adds a rounding error in batches; rejects rows whose first number is above 100."""

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        columns = inputs.T if isinstance(inputs, np.ndarray) else inputs.numbers.T
        if (columns[0] > 1e6).any():
            raise InvalidValueError("too much")
        numbers = numbers_of(inputs)
        return {output: np.nextafter(numbers, len(inputs) - 1) for output in outputs}


@pytest.fixture(params=[True, False], ids=["unequal", "equal"])
def unequal(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the registered format declares that batches may differ."""
    runtime = Unequal if request.param else ToyRuntime
    register(replace(TOY, load=lambda _content, file, _threads: runtime(file)))
    yield request.param
    unregister("toy")


def load(folder: Path, content: bytes, **overrides: bool) -> ServedModel:
    path = folder / "model"
    path.write_bytes(content)
    return load_model(path, manifest_of(content, "m", 1, overrides))


@pytest.mark.parametrize("features", [FEATURES, FEATURES[:3]], ids=["table", "matrix"])
def test_the_trial_and_the_load_find_it(unequal: bool, features: tuple[FileFeature, ...], tmp_path: Path) -> None:
    content = toy_file(features)
    served = load(tmp_path, content)
    assert scores_batches(served.runtime) is not unequal
    verdict, _ = judge(CaseFile(str(tmp_path / "model"), served.manifest), DEFAULT_TRIAL_LIMITS)
    assert (verdict.ok, verdict.batching) == (True, not unequal)


def test_each_row_has_the_same_bits_as_alone(unequal: bool, tmp_path: Path) -> None:
    served = load(tmp_path, toy_file(FEATURES))
    inputs = varied_inputs(FEATURES, 9)
    together = served.runtime.predict(inputs, ("prediction",))["prediction"]
    alone = [served.runtime.predict(inputs[row : row + 1], ("prediction",))["prediction"][0] for row in range(9)]
    assert together.tolist() == alone
    assert (served.runtime.n_features, served.runtime.feature_names) == (7, tuple(f.name for f in FEATURES))
    assert served.runtime.supports("prediction")
    assert served.runtime.values_per_row("prediction") == served.runtime.outputs_per_row == 1


@pytest.mark.usefixtures("unequal")
def test_a_manifest_may_require_it(tmp_path: Path) -> None:
    assert not scores_batches(load(tmp_path, toy_file(FEATURES), batching=False).runtime)


def test_a_long_prediction_makes_progress_with_each_row() -> None:
    catalog, seen = ModelCatalog(), list[int]()

    class Watched(Unequal):
        def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
            seen.append(catalog.rows_scored_alone())
            return super().predict(inputs, outputs)

    rows = RowByRow(Watched(TOY.read(toy_file(FEATURES[:3]), DEFAULT_LIMITS)))
    served = replace(sum_model(), runtime=rows)
    catalog.put(Version(served.manifest, "ready", served=served))
    rows.predict(np.zeros((3, 3)), ("prediction",))
    assert seen == [1, 2, 3]


def test_an_error_names_the_row_once() -> None:
    class OneRow(Unequal):
        def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
            raise InvalidValueError("row 0, feature 'x' is too large")

    rows = RowByRow(OneRow(TOY.read(toy_file(FEATURES[:3]), DEFAULT_LIMITS)))
    with pytest.raises(InvalidValueError, match=r"^row 0: feature 'x' is too large$"):
        rows.predict(np.zeros((2, 3)), ("prediction",))


def test_an_error_names_the_row() -> None:
    rows = RowByRow(Unequal(TOY.read(toy_file(FEATURES[:3]), DEFAULT_LIMITS)))
    with pytest.raises(InvalidValueError, match=r"^row 1: too much$"):
        rows.predict(np.array([[0.0, 0, 0], [1e7, 0, 0]]), ("prediction",))
    with pytest.raises(InvalidValueError, match=r"^too much$"):
        rows.predict(np.array([[1e7, 0.0, 0]]), ("prediction",))


def test_outputs_other_than_predictions_and_labels_count() -> None:
    file = TOY.read(toy_file(FEATURES, ["a", "b", "c"]), DEFAULT_LIMITS)
    assert is_equal_alone(ToyRuntime(file), varied_inputs(FEATURES), BOTH)

    class OtherProbabilities(ToyRuntime):
        def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
            arrays = super().predict(inputs, outputs)
            return {o: a / 3.0 if o == "probabilities" and len(inputs) > 1 else a for o, a in arrays.items()}

    assert is_equal_alone(OtherProbabilities(file), varied_inputs(FEATURES), ("prediction",))
    assert not is_equal_alone(OtherProbabilities(file), varied_inputs(FEATURES), BOTH)


def test_a_rejected_row_does_not_count_as_a_difference() -> None:
    runtime = Unequal(TOY.read(toy_file(FEATURES[:3]), DEFAULT_LIMITS))
    assert is_equal_alone(runtime, np.array([[1e7, 0.0, 0.0], [0.0, 0.0, 0.0]]), ("prediction",))


@given(
    st.lists(
        st.one_of(
            st.builds(FileFeature, name=st.just("f"), dtype=st.sampled_from(["float64", "float32", "bool", "text"])),
            st.builds(FileFeature, name=st.just("f"), dtype=st.just("int64"), min=st.sampled_from([None, -3.0, 2.0])),
            st.builds(
                FileFeature,
                name=st.just("f"),
                dtype=st.just("category"),
                categories=st.sampled_from([None, (), ("a",), (1, 2, 3)]),
                coded=st.booleans(),
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_varied_rows_are_of_the_kinds_of_their_features(drawn: list[FileFeature]) -> None:
    features = [replace(feature, name=f"f{place}") for place, feature in enumerate(drawn)]
    inputs = varied_inputs(features, 5)
    samples = sample_inputs(features)
    assert (type(inputs), len(inputs)) == (type(samples), 5)
    columns = inputs.T if isinstance(inputs, np.ndarray) else inputs.columns()
    for feature, column in zip(features, columns, strict=True):
        if feature.dtype == "int64":
            assert (column == np.floor(column)).all()
            assert feature.min is None or (column >= feature.min).all()
        elif feature.dtype == "bool":
            assert set(column.tolist()) <= {0.0, 1.0}
        elif not feature.is_number:
            assert all(isinstance(value, str | int) for value in column.tolist())


def test_rows_of_a_request_are_scored_one_by_one(unequal: bool, tmp_path: Path) -> None:
    served = load(tmp_path, toy_file(FEATURES[:3]))
    rows = served.features.inputs(ListRows([[0.5, 1, True], [1.5, 2, False]], False))
    expected = [served.runtime.predict(rows[row : row + 1], ("prediction",))["prediction"][0] for row in range(2)]
    assert served.runtime.predict(rows, ("prediction",))["prediction"].tolist() == expected
