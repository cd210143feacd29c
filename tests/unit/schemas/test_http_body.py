"""HTTP bodies of predictions become the same requests as on Kafka."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests.codec import decode_request
from inferd.schemas.requests.http_body import request_of_body

INPUTS = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3), st.lists, max_leaves=6)
BODIES = st.dictionaries(st.sampled_from(["input_data", "outputs", "id", "model_id", "x"]), INPUTS, max_size=4)


def verdict(value: bytes, codec: Any) -> Any:
    try:
        return decode_request(value, codec, DEFAULT_LIMITS)
    except InferenceError as error:
        return error.code


def outcome(body: bytes, codec: Any) -> Any:
    """The request of a body for `churn:12`, or its error."""
    try:
        return verdict(request_of_body(body, codec, "churn:12", "new"), codec)
    except InferenceError as error:
        return error.code


@given(body=BODIES, spaces=st.text(" \n\t\r", max_size=3))
def test_a_body_becomes_the_same_request_as_on_kafka(body: dict[str, Any], spaces: str) -> None:
    meant = {"id": "new", "model_id": "churn:12", **body}
    for codec, encode in ((JSON, msgspec.json.encode), (MSGPACK, msgspec.msgpack.encode)):
        around = spaces.encode() if codec is JSON else b""
        expected = "malformed" if "model_id" in body else verdict(encode(meant), codec)
        assert outcome(around + encode(body), codec) == expected


@given(body=st.binary(max_size=40), codec=st.sampled_from([JSON, MSGPACK]))
def test_any_bytes_become_a_request_or_are_rejected(body: bytes, codec: Any) -> None:
    outcome(body, codec)


@pytest.mark.parametrize(
    "body", [b'{"input_data":{"a":1,"a":2}}', b'{"input_data":[1.50,\t2e0]}', b'{"id":"r","x":{}}']
)
def test_values_are_the_same_bytes_in_the_request(body: bytes) -> None:
    (name, value), *_ = msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()
    request = request_of_body(body, JSON, "m", "new")
    assert b'"%s":%s' % (name.encode(), bytes(value)) in request


def test_a_text_that_is_also_a_key_is_no_repeated_key() -> None:
    body = rb'{"id":"id","input_data":{"\u0061":":"}}'
    assert msgspec.json.decode(request_of_body(body, JSON, "m", "new"))["id"] == "id"
