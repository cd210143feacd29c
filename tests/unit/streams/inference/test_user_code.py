"""Requests that user code answers: its inputs, results and exceptions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from inferd.schemas.errors import QuotaExceededError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests.request import Output
from inferd.streams.inference.scoring import Scorer
from inferd.streams.inference.user_code import PinnedModelId, plain_value
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import Fetched, catalog_of, finish, score

Asked = tuple[str, Any, tuple[Output, ...]]


class Own:
    """Returns prepared answers, and records the calls."""

    def __init__(self, answer: Any = None) -> None:
        self.asked: list[Asked] = []
        self._answer = answer

    def __call__(self, model_id: PinnedModelId, input_data: Any, outputs: tuple[Output, ...]) -> Mapping[Output, Any]:
        assert model_id.model.manifest.version == 1
        self.asked.append((model_id, input_data, outputs))
        answer = self._answer(input_data) if callable(self._answer) else self._answer
        return dict.fromkeys(outputs, answer)


def scorer_of(own: Own, limits: Limits = DEFAULT_LIMITS) -> Scorer:
    return Scorer(catalog_of(sum_model()), limits, ask=own)


def request(input_data: Any, model_id: str = "sum", **fields: Any) -> bytes:
    return msgspec.msgpack.encode({"model_id": model_id, "input_data": input_data, **fields})


def decoded(value: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.msgpack.decode(value)
    return decoded


def test_it_gets_requests_as_python_values() -> None:
    own = Own("yes")
    tensor = {"dtype": "<f4", "shape": [2, 2], "data": np.arange(4, dtype="<f4").tobytes()}
    inputs = [[1.0, 2], [[1, 2], [3, 4]], {"a": 1, "b": None}, [{"a": 1}], "nonsense", tensor, [], ["any", "text"]]
    outcome = score(scorer_of(own), [request(each, "sum:1") for each in inputs])
    assert [type(asked[1]).__name__ for asked in own.asked] == [
        "list",
        "list",
        "dict",
        "list",
        "ndarray",
        "list",
        "list",
    ]
    assert [asked[1] for asked in own.asked if not isinstance(asked[1], np.ndarray)] == [
        each for each in inputs if each not in ("nonsense", tensor)
    ]
    assert own.asked[4][1].tolist() == [[0, 1], [2, 3]]
    assert {asked[0] for asked in own.asked} == {"sum:1"}
    results = [decoded(value) for value in outcome.values]
    assert results[0].keys() == {"id", "model_id", "version", "digest", "prediction"}
    assert [result.get("prediction") for result in results] == ["yes"] * 4 + [None] + ["yes"] * 3
    assert results[4]["error"]["code"] == "malformed"
    assert outcome.by_model == {("sum", 1): (7, 1 + 2 + 1 + 1 + 2 + 0 + 1)}


def test_the_answer_is_in_the_request_s_encoding() -> None:
    asked = {"model_id": "sum", "input_data": [1, 2], "outputs": ["raw", "prediction"], "id": "r-1"}
    record = Fetched(json.dumps(asked).encode(), headers=[("content-type", b"application/json")])
    own = Own(lambda row: np.float32(sum(row)))
    answer = json.loads(score(scorer_of(own), [record]).values[0])
    assert (answer["id"], answer["raw"], answer["prediction"]) == ("r-1", 3.0, 3.0)
    assert own.asked[0][2] == ("raw", "prediction")


def test_user_code_is_not_called_for_unknown_models_or_late_requests() -> None:
    own = Own(1)
    late = Fetched(request([1, 2]), headers=[("deadline", b"1")])
    outcome = score(scorer_of(own), [request([1], "nobody"), request([1], "sum:7"), late], now_ms=1_000)
    codes = [decoded(value)["error"]["code"] for value in outcome.values]
    assert codes == ["model_not_found", "version_not_found", "deadline_exceeded"]
    assert own.asked == []


def raise_quota(_row: Any) -> Any:
    raise QuotaExceededError("not today")


def test_its_errors_are_those_of_one_request_each() -> None:
    def answer(row: Any) -> Any:
        answers: dict[int, Callable[[], Any]] = {
            1: lambda: 1 / 0, 2: sys.exit, 3: lambda: raise_quota(row), 4: object, 5: lambda: "fine",
        }  # fmt: skip
        return answers[row[0]]()

    outcome = score(scorer_of(Own(answer)), [request([n]) for n in range(1, 6)])
    results = [decoded(value) for value in outcome.values]
    assert [result.get("error", {}).get("code") for result in results] == [
        "internal", "internal", "quota_exceeded", "internal", None,
    ]  # fmt: skip
    assert "ZeroDivisionError" in results[0]["error"]["message"]
    assert "object is not a number" in results[3]["error"]["message"]
    assert results[4]["prediction"] == "fine"
    assert [type(fault) for fault in outcome.faults] == [ZeroDivisionError, RuntimeError]
    assert outcome.faults[0].__traceback__ is not None


def test_an_answer_without_a_requested_output_is_internal() -> None:
    scorer = Scorer(catalog_of(sum_model()), DEFAULT_LIMITS, ask=lambda *_: {})
    assert decoded(score(scorer, [request([1, 2])]).values[0])["error"]["code"] == "internal"


def test_an_answer_is_bounded() -> None:
    outcome = score(scorer_of(Own("x" * 2_000), Limits(result_bytes_max=1_000)), [request([1, 2])])
    assert decoded(outcome.values[0])["error"]["code"] == "too_large"


def test_it_always_runs_in_a_thread() -> None:
    batch = scorer_of(Own(1)).prepare([(0, [Fetched(request([1, 2]))])], 0)
    assert [group.in_thread for group in batch.groups] == [True]
    assert decoded(finish(batch).values[0])["prediction"] == 1
    plain = Scorer(catalog_of(sum_model()), DEFAULT_LIMITS).prepare([(0, [Fetched(request([1, 2]))])], 0)
    assert [group.in_thread for group in plain.groups] == [False]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.int32(7), 7),
        (np.array([[1.0], [2.0]]), [[1.0], [2.0]]),
        ({"label": np.bool_(True)}, {"label": True}),
        ((1, None, "x"), (1, None, "x")),
    ],
)
def test_numpy_s_values_are_plain(value: Any, plain: Any) -> None:
    assert plain_value(value) == plain
