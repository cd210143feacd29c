"""Rows to the matrix: names, order, categories, missing values and every rule of a manifest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.schemas.errors import InferenceError, InvalidValueError, SchemaMismatchError
from inferd.schemas.models.model import Feature, Manifest, Preprocess
from inferd.schemas.requests.request import (
    InputData,
    ListRows,
    NamedRows,
    Scalar,
    TensorRows,
)
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.inputs import Matrix
from inferd.streams.inference.manifests import manifest_of, reconcile
from tests.unit.streams.inference.trained_models import PandasTrained

NAN = math.nan


def manifest(features: list[Feature], **preprocess: Any) -> Manifest:
    return Manifest("m", 1, "lightgbm", "0" * 64, 1, features, preprocess=Preprocess(**preprocess))


def schema(*features: Feature, **preprocess: Any) -> FeatureSchema:
    return FeatureSchema(manifest(list(features), **preprocess))


def matrix_of(features: FeatureSchema, rows: InputData) -> Matrix:
    inputs = features.inputs(rows)
    assert isinstance(inputs, np.ndarray)
    return inputs


def one(features: FeatureSchema, row: list[Scalar] | dict[str, Scalar]) -> list[float]:
    rows: InputData = ListRows([row], True) if isinstance(row, list) else NamedRows([row], True)
    matrix = matrix_of(features, rows)
    assert matrix.shape == (1, features.n_features)
    assert matrix.dtype == np.float64
    assert matrix.flags.c_contiguous
    values: list[float] = matrix[0].tolist()
    return values


def tensor(values: Any, dtype: str) -> TensorRows:
    array = np.array(values, dtype)
    return TensorRows(dtype, (array.shape[0], array.shape[1]), array.tobytes())


AB = (Feature("a"), Feature("b"))
COLOUR = Feature("colour", "category", categories=["red", "green"])


# Layouts


def test_positional_and_named_rows() -> None:
    s = schema(*AB)
    assert one(s, [1.5, 2]) == [1.5, 2.0]
    assert one(s, {"b": True, "a": -1}) == [-1.0, 1.0]
    assert matrix_of(s, ListRows([[1.0, 2.0], [3.0, 4.0]], False)).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert matrix_of(s, NamedRows([{"a": 1, "b": 2}, {"b": 3, "a": 4}], False)).tolist() == [[1.0, 2.0], [4.0, 3.0]]
    assert matrix_of(s, ListRows([], False)).shape == (0, 2)
    assert (s.n_features, s.feature_names) == (2, ("a", "b"))


def test_one_feature() -> None:
    assert one(schema(Feature("a")), {"a": 2}) == [2.0]
    assert one(schema(Feature("a"), order=["a"]), [2]) == [2.0]


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<i4", "<i8", "|i1", "|u1", "<i2", "<u2", "<u4"])
def test_tensors(dtype: str) -> None:
    matrix = matrix_of(schema(*AB), tensor([[1, 2], [3, 4], [5, 6]], dtype))
    assert matrix.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert matrix.flags.writeable
    assert matrix.flags.c_contiguous


def test_tensors_of_booleans_and_float32_are_exact() -> None:
    assert matrix_of(schema(*AB), tensor([[True, False]], "|b1")).tolist() == [[1.0, 0.0]]
    assert matrix_of(schema(*AB), tensor([[0.1, NAN]], "<f4"))[0, 0] == float(np.float32(0.1))


def test_float64_is_kept_to_the_bit() -> None:
    values = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 2**53 + 2, 1e-35]
    s = schema(*[Feature(f"f{i}") for i in range(6)])
    assert np.array(one(s, list(values))).tobytes() == np.array(values, np.float64).tobytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ListRows([[1, 2], [1]], False), "row 1 has 1 features, expected 2"),
        (ListRows([[1, 2, 3]], True), "row 0 has 3 features, expected 2"),
        (ListRows([[]], True), "row 0 has 0 features"),
        (tensor([[1, 2, 3]], "<f8"), "row 0 has 3 features, expected 2"),
        (NamedRows([{"a": 1}], True), "row 0, features: missing 'b'"),
        (NamedRows([{"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}], False), "row 1, features: unknown 'c'"),
        (NamedRows([{"a": 1, "B": 2}], True), "unknown 'B'; missing 'b'"),
        (NamedRows([{}], True), "missing 'a', 'b'"),
        (NamedRows([{"a": 1, "b": 2, **{f"x{i}": 0 for i in range(9)}}], True), "'x4' and 4 more"),
        (NamedRows([{"a": 1, "b": 2, "x\n" + "ü" * 99: 3}], True), r"unknown 'x\\n\\xfc"),
    ],
)
def test_wrong_features_are_named(rows: InputData, message: str) -> None:
    with pytest.raises(SchemaMismatchError) as caught:
        matrix_of(schema(*AB), rows)
    assert message in caught.value.message.replace("\\", "\\\\") or message in caught.value.message
    assert len(caught.value.message) < 250


def test_order_of_positional_rows() -> None:
    s = schema(*AB, Feature("c", required=False), order=["b", "a"])
    assert not s.plain
    assert one(s, [1, 2])[:2] == [2.0, 1.0]
    assert math.isnan(one(s, [1, 2])[2])
    assert one(s, {"a": 1, "b": 2, "c": 3}) == [1.0, 2.0, 3.0]
    assert matrix_of(s, tensor([[1, 2]], "<i4"))[0, :2].tolist() == [2.0, 1.0]
    with pytest.raises(SchemaMismatchError, match="3 features, expected 2"):
        one(s, [1, 2, 3])
    assert schema(*AB, order=["a", "b"]).plain


# Missing values


def test_missing_values_are_nan() -> None:
    s = schema(*AB)
    for row in ([None, 1], [NAN, 1], {"a": None, "b": 1}, {"a": NAN, "b": 1}):
        values = one(s, row)  # type: ignore[arg-type]
        assert math.isnan(values[0])
        assert values[1] == 1.0


def test_required() -> None:
    s = schema(Feature("may_be_null"), Feature("must", required=True), Feature("may_be_left_out", required=False))
    values = one(s, {"may_be_null": None, "must": 1})
    assert (math.isnan(values[0]), values[1], math.isnan(values[2])) == (True, 1.0, True)
    rows: list[InputData] = [
        ListRows([[1, None, 1]], True),
        ListRows([[1, NAN, 1]], True),
        NamedRows([{"may_be_null": 1, "must": None}], True),
        tensor([[1, NAN, 1]], "<f8"),
    ]
    for row in rows:
        with pytest.raises(InvalidValueError, match="row 0, feature 'must' is missing, and required"):
            matrix_of(s, row)
    with pytest.raises(SchemaMismatchError, match="missing 'must'"):
        one(s, {"may_be_null": 1})


def test_defaults() -> None:
    s = schema(*AB, COLOUR, defaults={"b": 7, "colour": "green"})
    assert one(s, {"a": 1}) == [1.0, 7.0, 1.0]
    assert one(s, {"a": 1, "b": None, "colour": None}) == [1.0, 7.0, 1.0]
    assert one(s, [1, NAN, "red"]) == [1.0, 7.0, 0.0]
    plain = schema(*AB, defaults={"b": 7})
    assert plain.plain
    assert matrix_of(plain, tensor([[1, NAN]], "<f8")).tolist() == [[1.0, 7.0]]


# Values


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_values_are_rejected(value: float) -> None:
    for clip in ("error", "clip"):
        s = schema(Feature("a", min=0, max=9), Feature("b"), out_of_range=clip)
        for rows in (ListRows([[1, 2], [value, 2]], False), tensor([[1, 2], [value, 2]], "<f8")):
            with pytest.raises(InvalidValueError, match=r"^row 1, feature 'a' is infinite$"):
                matrix_of(s, rows)
    with pytest.raises(InvalidValueError, match="row 0, feature 'b' is infinite"):
        one(schema(*AB), [NAN, value])


def test_numbers_are_not_text() -> None:
    for value in ("1.5", "nan", ""):
        for row in ([1, value], {"a": None, "b": value}):
            with pytest.raises(InvalidValueError, match="row 0, feature 'b' is text where a number is expected"):
                one(schema(*AB), row)  # type: ignore[arg-type]


def test_integers_beyond_float64_are_rejected() -> None:
    with pytest.raises(InvalidValueError, match="row 0, feature 'b' is beyond float64"):
        one(schema(*AB), [1, -(10**400)])
    assert one(schema(*AB), [1, 10**300]) == [1.0, 1e300]


def test_float32() -> None:
    s = schema(Feature("a", "float32", max=0.1))
    assert one(s, [0.1]) == [float(np.float32(0.1))]
    assert math.isnan(one(s, [None])[0])
    with pytest.raises(InvalidValueError, match="feature 'a' is beyond float32"):
        one(schema(Feature("a", "float32")), [1e300])
    with pytest.raises(InvalidValueError, match=r"above its maximum of 0\.1"):
        one(s, [0.11])


def test_int64() -> None:
    s = schema(Feature("a", "int64"))
    assert one(s, [3.0]) == [3.0]
    assert one(s, [True]) == [1.0]
    assert one(s, [-(2**53) + 1]) == [-(2.0**53) + 1]
    for value in (2.5, 2**53, 2**53 + 1, -(2**53), 1e300):
        with pytest.raises(InvalidValueError, match="feature 'a' is not an integer"):
            one(s, [value])
    with pytest.raises(InvalidValueError, match="row 1, feature 'a' is not an integer"):
        matrix_of(s, tensor([[1], [2**53 + 1]], "<i8"))


def test_bool() -> None:
    s = schema(Feature("a", "bool"))
    assert [one(s, [value])[0] for value in (True, False, 1, 0.0)] == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(InvalidValueError, match="feature 'a' is neither true nor false"):
        one(s, [2])


def test_ranges() -> None:
    bounded = (Feature("a", min=0, max=10), Feature("b", max=5))
    s = schema(*bounded)
    assert one(s, [0, 5]) == [0.0, 5.0]
    for row, message in (([-0.5, 1], "'a' is below its minimum of 0"), ([1, 5.5], "'b' is above its maximum of 5")):
        with pytest.raises(InvalidValueError, match=message):
            one(s, row)  # type: ignore[arg-type]
    clipping = schema(*bounded, out_of_range="clip")
    assert one(clipping, [-3, 99]) == [0.0, 5.0]
    assert clipping.plain
    assert math.isnan(one(clipping, [None, 1])[0])


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_negative_zero_at_a_bound_is_not_clipped_in_any_batch(rows: int) -> None:
    s = schema(Feature("a", min=0), Feature("b", max=-0.0), out_of_range="clip")
    matrix = matrix_of(s, ListRows([[-0.0, 0.0]] * rows, True))
    assert np.signbit(matrix).tolist() == [[True, False]] * rows


def test_a_number_that_is_clipped_is_not_the_problem_that_is_named() -> None:
    s = schema(Feature("a", min=0, max=10), Feature("b", required=True), out_of_range="clip")
    with pytest.raises(InvalidValueError, match="'b' is missing, and required"):
        one(s, [99, None])


def test_the_first_bad_value_is_named() -> None:
    s = schema(Feature("a", max=1), Feature("b", "int64"))
    with pytest.raises(InvalidValueError, match=r"^row 1, feature 'a' is above"):
        matrix_of(s, ListRows([[1, 1], [2, 1.5], [3, math.inf]], False))


# Categories


def test_string_categories() -> None:
    s = schema(Feature("a"), COLOUR)
    assert not s.plain
    assert one(s, [1, "green"]) == [1.0, 1.0]
    assert one(s, {"colour": "red", "a": 1}) == [1.0, 0.0]
    assert math.isnan(one(s, [1, None])[1])
    assert math.isnan(one(s, [1, NAN])[1])
    for unknown in ("blue", "Red", "", 0, 1.0, True):
        with pytest.raises(InvalidValueError, match=r"^row 0, feature 'colour' is not one of its 2 categories$"):
            one(s, [1, unknown])
    with pytest.raises(InvalidValueError, match="row 0, feature 'colour' is not one of its 2 categories"):
        matrix_of(s, tensor([[1, 1]], "<f8"))


def test_errors_show_no_values() -> None:
    s = schema(Feature("a", max=1), COLOUR)
    for row in ([77123, "red"], [0, "secret"], ["secret", "red"], [0, 77123]):
        with pytest.raises(InferenceError) as caught:
            one(s, row)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
        assert "77123" not in str(caught.value)


def test_unknown_categories_may_count_as_missing() -> None:
    s = schema(Feature("a"), COLOUR, unknown_category="missing")
    assert math.isnan(one(s, [1, "blue"])[1])
    assert math.isnan(one(s, [1, 5])[1])
    required = schema(Feature("c", "category", categories=["x"], required=True), unknown_category="missing")
    with pytest.raises(InvalidValueError, match="'c' is missing, and required"):
        one(required, ["y"])


def test_numbers_and_booleans_as_categories() -> None:
    gate = schema(Feature("gate", "category", categories=[3, 5, 90]))
    assert [one(gate, [value])[0] for value in (3, 5.0, 90)] == [0.0, 1.0, 2.0]
    assert matrix_of(gate, tensor([[5], [90]], "<i4")).tolist() == [[1.0], [2.0]]
    night = schema(Feature("night", "category", categories=[False, True]))
    assert [one(night, [value])[0] for value in (True, False)] == [1.0, 0.0]
    mixed = schema(Feature("m", "category", categories=["1", 1, 0.5]))
    assert [one(mixed, [value])[0] for value in ("1", 1, 0.5)] == [0.0, 1.0, 2.0]
    for s, value in ((gate, True), (gate, "3"), (gate, 4), (night, 1), (night, "True"), (mixed, True), (mixed, "0.5")):
        with pytest.raises(InvalidValueError, match="categories"):
            one(s, [value])
    assert math.isnan(one(night, [None])[0])


def test_a_feature_whose_training_had_no_category() -> None:
    s = schema(Feature("c", "category", categories=[]))
    assert math.isnan(one(s, [None])[0])
    with pytest.raises(InvalidValueError, match="not one of its 0 categories"):
        one(s, ["x"])


def test_data_frames_and_rows_score_the_same(pandas_trained: PandasTrained) -> None:
    file = read_model_file(pandas_trained.text)
    s = FeatureSchema(reconcile(manifest_of(pandas_trained.text, "m", 1), file))
    frame = pandas_trained.frame.astype(object).where(pandas_trained.frame.notna(), None)
    rows = [dict(row) for row in frame.to_dict("records")]
    runtime = LightGBMRuntime(pandas_trained.text)
    expected = pandas_trained.booster.predict(pandas_trained.frame)
    named = matrix_of(s, NamedRows(rows, False))
    assert runtime.predict(named, ("prediction",))["prediction"].tobytes() == expected.tobytes()
    positional = matrix_of(s, ListRows([list(row.values()) for row in rows], False))
    assert positional.tobytes() == named.tobytes()


# Manifests that contradict themselves


@pytest.mark.parametrize(
    ("features", "preprocess", "message"),
    [
        ([], {}, "no features"),
        ([Feature("a"), Feature("b"), Feature("a")], {}, "names 'a' twice"),
        ([Feature("a", "category")], {}, "category without categories"),
        ([Feature("a", categories=["x"])], {}, "categories without the dtype"),
        ([Feature("a", "category", categories=["x", "x"])], {}, "same category twice"),
        ([Feature("a", "category", categories=[1, True])], {}, "same category twice"),
        ([Feature("a", "category", categories=["x"], min=0)], {}, "is a category, and has a min"),
        ([Feature("a", min=2, max=1)], {}, "min above its max"),
        ([Feature("a", min=NAN)], {}, "not finite"),
        ([Feature("a", max=math.inf)], {}, "not finite"),
        ([Feature("a", "int64", min=0.5)], {}, "not an integer"),
        ([Feature("a")], {"defaults": {"b": 1}}, "defaults names 'b'"),
        ([Feature("a", required=True)], {"defaults": {"a": 1}}, "is required, and has a default"),
        ([Feature("a", max=1)], {"defaults": {"a": 2}}, "default that it does not allow"),
        ([Feature("a")], {"defaults": {"a": "x"}}, "default that it does not allow"),
        ([Feature("a")], {"defaults": {"a": None}}, "default that it does not allow"),
        ([Feature("a")], {"defaults": {"a": NAN}}, "default that it does not allow"),
        ([COLOUR], {"defaults": {"colour": "blue"}}, "default that it does not allow"),
        ([COLOUR], {"defaults": {"colour": None}}, "default that it does not allow"),
        (list(AB), {"order": ["a", "b", "a"]}, "order names 'a' twice"),
        (list(AB), {"order": ["a", "c"]}, "order names 'c'"),
        (list(AB), {"order": ["a"]}, "leaves out 'b'"),
    ],
)
def test_contradictions(features: list[Feature], preprocess: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaMismatchError, match=message):
        FeatureSchema(manifest(features, **preprocess))


# `check`, which the vectorised path relies on: exactly the rows that `matrix` would reject or change

VALUES = st.sampled_from(
    [0.0, -0.0, 1.0, 2.0, 0.5, 0.1, -1.0, 3.0, 4.0, NAN, math.inf, -math.inf, 1e300, 2.0**53, 2.0**53 - 1, 5e-324]
)
FEATURES = st.builds(
    lambda dtype, low, high, required: {
        "dtype": dtype,
        "min": low if low is None or high is None else min(low, high),
        "max": high if low is None or high is None else max(low, high),
        "required": required,
    },
    st.sampled_from(["float64", "float32", "int64", "bool"]),
    st.sampled_from([None, None, 0, -1]),
    st.sampled_from([None, None, 1, 3]),
    st.sampled_from([None, True, False]),
)


@settings(max_examples=400)
@given(st.data())
def test_apply_returns_the_values_of_inputs_and_flags_rejected_rows(data: st.DataObject) -> None:
    specs = data.draw(st.lists(FEATURES, min_size=1, max_size=4))
    features = [Feature(f"f{place}", **spec) for place, spec in enumerate(specs)]
    free = [feature.name for feature in features if feature.required is not True]
    defaults = {name: 1 for name in data.draw(st.lists(st.sampled_from(free), unique=True)) if free} if free else {}
    s = schema(*features, defaults=defaults, out_of_range=data.draw(st.sampled_from(["error", "clip"])))
    rows = np.array(data.draw(st.lists(st.tuples(*[VALUES] * len(features)), min_size=1, max_size=6)), np.float64)
    applied = rows.copy()
    flagged = s.apply(applied)
    assert flagged is None or (flagged.any() and flagged.shape == (len(rows),))
    for index, row in enumerate(rows):
        try:
            matrix = matrix_of(s, ListRows([row.tolist()], True))
        except InvalidValueError:
            assert flagged is not None
            assert flagged[index]
        else:
            assert flagged is None or not flagged[index]
            assert applied[index].tobytes() == matrix[0].tobytes()


@settings(max_examples=300)
@given(st.data())
def test_all_layouts_give_the_same_matrix_or_error(data: st.DataObject) -> None:
    specs = data.draw(st.lists(FEATURES, min_size=1, max_size=4))
    s = schema(*[Feature(f"f{place}", **spec) for place, spec in enumerate(specs)])
    rows = data.draw(st.lists(st.lists(VALUES, min_size=len(specs), max_size=len(specs)), min_size=1, max_size=5))
    outcomes = [
        _outcome(s, layout)
        for layout in (
            ListRows([list(row) for row in rows], False),
            ListRows([[None if math.isnan(value) else value for value in row] for row in rows], False),
            NamedRows([dict(zip(s.feature_names, row, strict=True)) for row in rows], False),
            tensor(rows, "<f8"),
        )
    ]
    assert outcomes[1:] == outcomes[:1] * 3


def _outcome(s: FeatureSchema, rows: InputData) -> bytes | str:
    try:
        matrix = matrix_of(s, rows)
    except InferenceError as error:
        return error.message
    return np.where(np.isnan(matrix), NAN, matrix).tobytes()


def test_values_are_what_inputs_were_made_from() -> None:
    features = schema(
        Feature("x"), Feature("n", "int64"), Feature("b", "bool"), Feature("c", "category", categories=["u", "v"]),
        Feature("d", "category", categories=[True, 1.5, 2]), defaults={"n": 7},
    )  # fmt: skip
    rows: list[list[Scalar]] = [[1.5, 2, True, "v", True], [None, None, False, None, 2], [0.0, -3, None, "u", 1.5]]
    values = features.values(features.inputs(ListRows([[*row] for row in rows], False)))
    expected = [[*row] for row in rows]
    expected[1][1] = 7
    assert [list(row) for row in zip(*values.values(), strict=True)] == expected
    assert list(values) == ["x", "n", "b", "c", "d"]
    assert [type(column[0]) for column in values.values()] == [float, int, bool, str, bool]
