"""A request with `row_errors` gets an error for each invalid row; its other rows are scored as in a request of their
own."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.codec import decode_result, encode_result
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.limits import Limits
from inferd.schemas.requests.result import Prediction
from inferd.streams.inference.scoring import Scorer
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import Fetched, catalog_of, score

ASKING = (("row-errors", b"true"),)
GOOD = st.sampled_from([[1.0, 2.0], {"a": 3.0, "b": 4}, [5, 6.5], {"b": 1, "a": -1}])
BAD = st.sampled_from([[1.0], [1.0, "x"], {"a": 1.0}, {"a": 1.0, "c": 2.0}, [1.0, 2.0, 3.0], [[1.0], 2.0], [], {}])
OUTPUTS = ["prediction", "raw"]


def scorer(**limits: Any) -> Scorer:
    return Scorer(catalog_of(sum_model(1)), Limits(**limits))


def answered(data: Any, codec: Codec = MSGPACK, by: Scorer | None = None, **more: Any) -> dict[str, Any]:
    request = {"id": "r", "model_id": "sum", "input_data": data, **more}
    value = msgpack.packb(request) if codec is MSGPACK else json.dumps(request).encode()
    headers = (("content-type", f"application/{codec}".encode()), *ASKING)
    (result,) = score(by or scorer(), [Fetched(value, headers=headers)]).values
    decoded: dict[str, Any] = msgpack.unpackb(result) if codec is MSGPACK else json.loads(result)
    return decoded


def alone(row: Any) -> dict[str, Any]:
    (result,) = score(scorer(), [msgpack.packb({"id": "r", "model_id": "sum", "input_data": [row]})]).values
    decoded: dict[str, Any] = msgpack.unpackb(result)
    return decoded


@given(st.lists(GOOD | BAD, min_size=1, max_size=8), st.sampled_from([MSGPACK, JSON]))
def test_each_row_has_the_same_outcome_as_alone(rows: list[Any], codec: Codec) -> None:
    said = answered(rows, codec, outputs=OUTPUTS)
    errors = {error["row"]: error for error in said["errors"]}
    assert [*errors] == sorted(errors)
    for number, row in enumerate(rows):
        expected = alone(row)
        if "error" in expected:
            assert errors[number]["code"] == expected["error"]["code"]
            assert f"row {number}" in errors[number]["message"]
            assert [said[output][number] for output in OUTPUTS] == [None, None]
        else:
            assert said["prediction"][number] == said["raw"][number] == expected["prediction"][0]


def test_a_request_without_bad_rows_has_an_empty_list() -> None:
    assert (answered([[1.0, 2.0]])["prediction"], answered([[1.0, 2.0]])["errors"]) == ([3.0], [])


def test_rows_of_a_tensor() -> None:
    data = np.array([[1, 2], [np.inf, 1], [3, 4]], "<f8")
    said = answered({"dtype": "<f8", "shape": [3, 2], "data": data.tobytes()})
    assert (said["prediction"], [error["row"] for error in said["errors"]]) == ([3.0, None, 7.0], [1])


@pytest.mark.parametrize(
    ("data", "code"),
    [([1.0, "x"], "invalid_value"), ({"a": 1.0}, "schema_mismatch"), ("rows", "malformed")],
)
def test_input_that_is_not_a_list_of_rows_fails_as_a_whole(data: Any, code: str) -> None:
    said = answered(data)
    assert "errors" not in said
    assert said["error"]["code"] in (code, "schema_mismatch")


def test_bounds_hold_for_the_whole_request() -> None:
    assert answered([[1.0], [2.0], [3.0, 4.0]], by=scorer(rows_max=2))["error"]["code"] == "too_large"
    rows = [[1.0]] * 50 + [[1.0, 2.0]]
    assert answered(rows, by=scorer(result_bytes_max=500))["error"]["code"] == "too_large"


def test_without_the_header_a_bad_row_fails_its_request() -> None:
    (result,) = score(scorer(), [msgpack.packb({"model_id": "sum", "input_data": [[1.0, 2.0], [1.0]]})]).values
    assert msgpack.unpackb(result)["error"]["code"] == "schema_mismatch"


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_row_whose_prediction_is_not_finite_fails_alone() -> None:
    said = answered([[1e308, 1e308], [1.0, 2.0]])
    assert said["prediction"] == [None, 3.0]
    assert [(error["row"], error["code"]) for error in said["errors"]] == [(0, "invalid_value")]


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
def test_clients_read_the_errors(codec: Codec) -> None:
    request = msgpack.packb({"model_id": "sum", "input_data": [[1.0], [1.0, 2.0]]})
    (value,) = score(scorer(), [Fetched(request, headers=ASKING)]).values
    result = decode_result(value, MSGPACK)
    assert isinstance(result, Prediction)
    assert result.errors is not None
    assert (result.errors[0].row, result.errors[0].error().code) == (0, "schema_mismatch")
    assert decode_result(encode_result(result, codec), codec) == result
