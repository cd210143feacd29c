"""Layouts of requests and results: each reads what it writes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench.layouts import LAYOUTS, MODEL_ID, OPEN_INFERENCE
from bench.requests import Requests, make_requests, make_text_requests


def of_numbers(layout: str) -> Requests:
    return make_requests(3, "test-", layout)


def of_texts(layout: str) -> Requests:
    return make_text_requests(3, "test-", layout)


CASES = [(of_numbers, name) for name in LAYOUTS] + [(of_texts, name) for name in LAYOUTS if name != "named-json"]


@pytest.mark.parametrize(("make", "layout"), CASES)
def test_a_request(make: Any, layout: str) -> None:
    requests = make(layout)
    request = requests.layout.decode(requests.encode(1))
    assert (request["id"], request["model_id"]) == ("test-00000001", MODEL_ID)
    assert list(requests.layout.values(request["input_data"])) == requests.rows[1].tolist()


@pytest.mark.parametrize("prediction", [0.1, 7, "praise"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_result(layout: str, prediction: Any) -> None:
    result = {"id": "a", "model_id": MODEL_ID, "version": 1, "digest": "d" * 64, "prediction": prediction}
    assert LAYOUTS[layout].read(LAYOUTS[layout].encode(result)) == result


def test_the_protocol_has_the_id_in_the_key_and_the_model_in_a_header() -> None:
    requests = of_numbers(OPEN_INFERENCE)
    assert requests.key(1) == b"test-00000001"
    assert dict(requests.layout.headers) == {"mlserver-model": MODEL_ID.encode()}
    (tensor,) = msgspec.json.decode(requests.encode(1))["inputs"]
    assert (tensor["datatype"], tensor["shape"]) == ("FP64", [1, 30])


def test_all_requests_differ() -> None:
    for requests in (make_requests(100, "test-"), make_text_requests(100, "test-")):
        assert len({tuple(row) for row in requests.rows.tolist()}) == len(requests)
