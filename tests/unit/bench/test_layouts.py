"""Layouts of requests and results: each reads what it writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.layouts import CATEGORIES, LAYOUTS, MODEL_ID, NAMES, OPEN_INFERENCE
from bench.model import SIZES, train_model
from bench.requests import Requests, make_requests, make_text_requests


def of_numbers(layout: str) -> Requests:
    return make_requests(3, "test-", layout)


def of_texts(layout: str) -> Requests:
    return make_text_requests(3, "test-", layout)


CASES = [(of_numbers, name) for name in LAYOUTS] + [
    (of_texts, name) for name in LAYOUTS if not name.startswith("named-json")
]


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


def test_a_category_is_a_string_in_the_request_and_an_index_in_the_row() -> None:
    requests = of_numbers("named-json-category")
    data = msgspec.json.decode(requests.encode(1))["input_data"]
    assert data[NAMES[-1]] == CATEGORIES[int(requests.rows[1, -1])]
    assert all(isinstance(data[name], float) for name in NAMES[:-1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_rows_differ_not_only_the_ids(layout: str) -> None:
    requests = make_requests(2_000, "test-", layout)
    rows = [msgspec.json.encode(requests.layout.decode(requests.encode(n))["input_data"]) for n in range(2_000)]
    assert len(set(rows)) == len(requests)


def test_all_texts_differ() -> None:
    requests = make_text_requests(100, "test-")
    assert len({tuple(row) for row in requests.rows.tolist()}) == len(requests)


def test_the_layouts_and_models_of_the_comparison_exist() -> None:
    assert {"list-msgpack", "named-json", "named-json-category"} <= LAYOUTS.keys()
    assert {"100x31", "500x63"} == SIZES.keys()


def test_a_model_knows_the_categories_of_the_layout(tmp_path: Path) -> None:
    text = train_model(tmp_path, categories=CATEGORIES).path.read_text()
    (line,) = re.findall("^pandas_categorical:(.*)$", text, re.MULTILINE)
    assert msgspec.json.decode(line) == [list(CATEGORIES)]
