"""ONNX models against ONNX Runtime itself, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InvalidValueError, MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import Output, decode_input_data
from inferd.streams.inference import Inputs, ServedModel, TrialLimits, load_model, manifest_of, read_model
from inferd.streams.models.trial import TrialCase, try_models
from tests.unit.streams.inference.formats.onnx.onnx_models import KINDS, converted, doubled, numbers, typed

_served: dict[bytes, ServedModel] = {}
_sessions: dict[bytes, Any] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def served(content: bytes, folder: Path) -> ServedModel:
    if content not in _served:
        path = folder / str(len(_served))
        path.write_bytes(content)
        _served[content] = load_model(path, manifest_of(content, "m", 1))
    return _served[content]


def session(content: bytes) -> Any:
    if content not in _sessions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        _sessions[content] = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return _sessions[content]


def inputs_of(model: ServedModel, rows: list[Any]) -> Inputs:
    return model.features.inputs(decode_input_data(msgspec.msgpack.encode(rows), MSGPACK, DEFAULT_LIMITS))


def feed_of(content: bytes, rows: list[list[Any]]) -> dict[str, Any]:
    """The rows in the form of ONNX Runtime's input."""
    types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    feed, first = {}, 0
    for each in session(content).get_inputs():
        last = first + each.shape[1]
        feed[each.name] = np.array([row[first:last] for row in rows], types.get(each.type, object))
        first = last
    return feed


def check_equal(content: bytes, rows: list[list[Any]], folder: Path) -> None:
    """Each row of a batch has the same bits as when the library scores it alone."""
    model = served(content, folder)
    outputs: tuple[Output, ...] = tuple(o for o in ("prediction", "probabilities") if model.runtime.supports(o))
    columns = model.postprocessor.columns(model.runtime.predict(inputs_of(model, rows), outputs), outputs)
    for index, row in enumerate(rows):
        label, *more = session(content).run(None, feed_of(content, [row]))
        value = label[0].tolist() if isinstance(label[0], np.ndarray) else label[0]
        expected = value[0] if isinstance(value, list) and len(value) == 1 else value
        assert columns["prediction"][index] == expected
        if "probabilities" in columns:
            scores = more[0][0]
            of_classes = list(scores.values()) if isinstance(scores, dict) else scores.tolist()
            assert columns["probabilities"][index] == of_classes


def rows_of(name: str) -> list[list[Any]]:
    if name == "columns":
        return [[0.5, 3, "pro"], [-1.25, 0, "basic"], [0.0, 4, "unheard of"], [1.0, 2, "数据"]]
    return [[float(value) for value in row] for row in numbers(1)[:6]]


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_equals_the_librarys_single_rows(name: str, folder: Path) -> None:
    check_equal(converted(name), rows_of(name), folder)


@pytest.mark.parametrize("name", ["logistic", "forest"])
def test_probabilities_without_a_map(name: str, folder: Path) -> None:
    check_equal(converted(name, zipmap=False), rows_of(name), folder)


FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**99), max_value=2.0**99),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 0.1, 3.4e30]),
)


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.lists(FLOATS, min_size=4, max_size=4), min_size=1, max_size=6))
@pytest.mark.parametrize("name", ["forest", "boosted"])
def test_numbers_at_the_edges(name: str, rows: list[list[float]], folder: Path) -> None:
    check_equal(converted(name), rows, folder)


def test_facts_of_files() -> None:
    logistic, columns = read_model(converted("logistic")), read_model(converted("columns"))
    assert (logistic.runtime, logistic.classes, logistic.feature_names) == (
        "onnx",
        ("nö", "yes"),
        ("x0", "x1", "x2", "x3"),
    )
    assert [(each.name, each.dtype) for each in columns.features] == [
        ("age", "float32"),
        ("visits", "int64"),
        ("plan", "text"),
    ]
    assert read_model(converted("linear_two")).outputs_per_row == 2


@pytest.mark.parametrize(
    ("name", "missing"), [("imputed", True), ("logistic", False), ("linear", False), ("forest", True)]
)
def test_missing_values_are_accepted_only_if_the_graph_accepts_them(name: str, missing: bool, folder: Path) -> None:
    rows = [rows_of(name)[0], [1.0, None, 1.0, 1.0]]
    if missing:
        model = served(converted(name), folder)
        model.runtime.predict(inputs_of(model, rows), ("prediction",))
    else:
        with pytest.raises(InvalidValueError, match="row 1, feature 'x1' is missing"):
            inputs_of(served(converted(name), folder), rows)


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (TensorProto.INT64, 1.5, "is not an integer"),
        (TensorProto.INT32, 2**31, "is above its maximum"),
        (TensorProto.FLOAT, 1e39, "is beyond float32"),
        (TensorProto.BOOL, 2, "is neither true nor false"),
        (TensorProto.INT64, "1", "is text"),
        (TensorProto.INT64, None, "is missing"),
    ],
)
def test_a_value_of_another_type_is_rejected(kind: int, value: Any, problem: str, folder: Path) -> None:
    with pytest.raises(InvalidValueError, match=f"row 0, feature 'x' {problem}"):
        inputs_of(served(typed(kind), folder), [[value]])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (TensorProto.INT64, 2**53 - 1),
        (TensorProto.INT32, -(2**31)),
        (TensorProto.DOUBLE, 5e-324),
        (TensorProto.BOOL, True),
    ],
)
def test_inputs_of_every_type(kind: int, value: Any, folder: Path) -> None:
    model = served(typed(kind), folder)
    assert model.runtime.predict(inputs_of(model, [[value]]), ("prediction",))["prediction"].tolist() == [float(value)]


def test_an_output_of_several_numbers(folder: Path) -> None:
    model = served(doubled(), folder)
    result = model.runtime.predict(inputs_of(model, [[1.0, 2.0, 3.0]] * 2), ("prediction",))["prediction"]
    assert result.tolist() == [[2.0, 4.0, 6.0]] * 2


def test_models_pass_their_trial() -> None:
    cases = [TrialCase(converted(name)) for name in ("forest", "columns", "linear_two")]
    verdicts = try_models(cases, TrialLimits(start_s=600))
    assert [verdict.reason for verdict in verdicts] == [None] * 3


def test_a_graph_that_the_library_rejects_fails(tmp_path: Path) -> None:
    content = doubled().replace(b"Add", b"And")
    path = tmp_path / "m"
    path.write_bytes(content)
    with pytest.raises(MalformedError, match="ONNX Runtime rejects it"):
        load_model(path, manifest_of(content, "m", 1))
