"""The verification of a benchmark: which results it accepts and which it rejects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from bench.errors import BenchError
from bench.layouts import FEATURES
from bench.requests import Requests, make_requests
from bench.verification import verify

COUNT = 20
MODEL = (1, "d" * 64)
EXPECTED = np.linspace(0.0, 1.0, COUNT)
Result = dict[str, Any]


@pytest.fixture
def requests() -> Requests:
    return make_requests(COUNT, "test-")


@pytest.fixture
def results(requests: Requests) -> list[Result]:
    return [
        {
            "id": requests.request_id(number),
            "model_id": "bench",
            "version": 1,
            "digest": MODEL[1],
            "prediction": float(EXPECTED[number]),
        }
        for number in range(COUNT)
    ]


def check(results: list[Result], requests: Requests) -> list[int]:
    return list(verify(map(msgpack.packb, results), requests, EXPECTED, MODEL, "peer"))


def test_right_results_pass_in_any_order(results: list[Result], requests: Requests) -> None:
    assert check(results[::-1], requests) == list(range(COUNT))[::-1]


def lose(results: list[Result]) -> None:
    del results[3]


def repeat(results: list[Result]) -> None:
    results.append(results[3])


def replace(results: list[Result]) -> None:
    results[3] = results[4]


def nudge(results: list[Result]) -> None:
    results[3]["prediction"] = float(np.nextafter(EXPECTED[3], 1.0))


def fail(results: list[Result]) -> None:
    results[3] = {"id": results[3]["id"], "model_id": "bench", "error": {"code": "model_not_ready"}}


def other_model(results: list[Result]) -> None:
    results[3]["digest"] = "e" * 64


def stranger(results: list[Result]) -> None:
    results[3]["id"] = "other-00000003"


def beyond(results: list[Result]) -> None:
    results[3]["id"] = f"test-{COUNT:08d}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose, "1 have no result and 0 have several; the first of them is test-00000003"),
        (repeat, "0 have no result and 1 have several"),
        (replace, "1 have no result and 1 have several"),
        (nudge, "1 predictions differ from the library's, the first is that of test-00000003"),
        (fail, "model_not_ready"),
        (other_model, "another model"),
        (stranger, "a result without a request"),
        (beyond, "a result without a request"),
    ],
)
def test_wrong_results_are_rejected(
    spoil: Callable[[list[Result]], None], message: str, results: list[Result], requests: Requests
) -> None:
    spoil(results)
    with pytest.raises(BenchError, match=message):
        check(results, requests)


def test_requests_are_the_same_in_every_process(requests: Requests) -> None:
    again = make_requests(COUNT, "test-")
    assert [again.encode(n) for n in range(COUNT)] == [requests.encode(n) for n in range(COUNT)]
    assert make_requests(COUNT, "other-").encode(0) != requests.encode(0)


def test_a_request_is_one_row_of_float64_in_about_320_bytes(requests: Requests) -> None:
    value = requests.encode(7)
    request = msgpack.unpackb(value)
    assert request.keys() == {"id", "model_id", "input_data"}
    assert len(request["input_data"]) == FEATURES
    assert 300 < len(value) < 350
    assert requests.number(request["id"]) == 7
