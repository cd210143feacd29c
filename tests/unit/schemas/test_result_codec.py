from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.codec import decode_result, encode_result
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError, SchemaMismatchError
from inferd.schemas.limits import Limits
from inferd.schemas.requests.result import Failure, Prediction

CODECS: tuple[Codec, ...] = (MSGPACK, JSON)
PREDICTION: dict[str, Any] = {"id": "a", "model_id": "m", "version": 1, "digest": "d", "prediction": 1.5}
FAILURE: dict[str, Any] = {
    "id": "a",
    "model_id": "m",
    "error": {"code": "malformed", "message": "why", "retryable": True},
}


def dump(fields: Any, codec: Codec) -> bytes:
    return json.dumps(fields).encode() if codec is JSON else bytes(msgpack.packb(fields))


def rejection(value: bytes | None, codec: Codec, limits: Limits | None = None) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        decode_result(value, codec, *([limits] if limits else []))
    return caught.value


def test_fields_are_in_wire_order_and_outputs_in_requested_order() -> None:
    result = Prediction("a", "m", 1, "d", {"raw": 0.5, "prediction": 1})
    value = b'{"id":"a","model_id":"m","version":1,"digest":"d","raw":0.5,"prediction":1}'
    assert encode_result(result, JSON) == value
    assert list(msgpack.unpackb(encode_result(result, MSGPACK))) == list(json.loads(value))
    decoded = decode_result(value, JSON)
    assert isinstance(decoded, Prediction)
    assert list(decoded.outputs) == ["raw", "prediction"]


def test_failures() -> None:
    failure = Failure.of(SchemaMismatchError("why"), "0-1", None)
    value = b'{"id":"0-1","model_id":null,"error":{"code":"schema_mismatch","message":"why","retryable":false}}'
    assert encode_result(failure, JSON) == value
    for codec in CODECS:
        decoded = decode_result(encode_result(failure, codec), codec)
        assert decoded == failure
        assert isinstance(decoded, Failure)
        assert isinstance(decoded.error(), SchemaMismatchError)


def test_json_has_null_for_nan() -> None:
    result = Prediction("a", "m", 1, "d", {"prediction": [float("nan"), float("inf"), -float("inf"), 1.0]})
    assert b"[null,null,null,1.0]" in encode_result(result, JSON)
    assert b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00" in encode_result(result, MSGPACK)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_own_outputs(codec: Codec) -> None:
    result = Prediction("a", "m", 1, "d", {"prediction": 1.5, "digest": "own", "b": [[0.5]]})
    assert decode_result(encode_result(result, codec), codec) == result
    for outputs in ([1], None, 1):
        assert rejection(dump({**PREDICTION, "outputs": outputs}, codec), codec).code == "malformed"
    twice = encode_result(Prediction("a", "m", 1, "d", {"prediction": 1.5, "a": 1, "c": 1}), codec)
    with pytest.raises(InferenceError, match="appears twice"):
        decode_result(twice.replace(b'"c"', b'"a"').replace(b"\xa1c\x01", b"\xa1a\x01"), codec)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_unknown_fields_are_ignored(codec: Codec) -> None:
    later = dump({**PREDICTION, "later": {"a": [1]}, "interval": [1, 2]}, codec)
    assert decode_result(later, codec) == Prediction("a", "m", 1, "d", {"prediction": 1.5})
    error = {**FAILURE["error"], "details": [1]}
    assert decode_result(dump({**FAILURE, "error": error}, codec), codec) == Failure("a", "m", "malformed", "why", True)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("missing", ["id", "model_id", "version", "digest"])
def test_a_missing_field_is_named(missing: str, codec: Codec) -> None:
    fields = {name: value for name, value in PREDICTION.items() if name != missing}
    error = rejection(dump(fields, codec), codec)
    assert (error.code, missing in error.message) == ("malformed", True)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize(
    ("name", "value"),
    [("id", 1), ("version", "1"), ("version", 1.5), ("digest", None), ("error", "why"), ("error", {"code": "x"})],
)
def test_a_field_of_another_type_is_named(name: str, value: Any, codec: Codec) -> None:
    error = rejection(dump({**PREDICTION, name: value}, codec), codec)
    assert (error.code, name in error.message) == ("malformed", True)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "malformed"),
        (b"", "malformed"),
        (b"\x91\x01", "malformed"),
        (b"\x82\xa2id\xa1a\xa2id\xa1b", "malformed"),
        (msgpack.packb({**PREDICTION, "prediction": msgpack.Timestamp(1, 0)}), "malformed"),
        (msgpack.packb({**PREDICTION, "prediction": b"x"}), "malformed"),
        (msgpack.packb(PREDICTION)[:-9] + b"\x91" * 5 + b"\xc0", "malformed"),
        (msgpack.packb(PREDICTION)[:-9] + b"\x91" * 500 + b"\xc0", "too_deep"),
        (msgpack.packb(PREDICTION)[:-9] + b"\x91" * 5_000 + b"\xc0", "too_deep"),
        (msgpack.packb(PREDICTION)[:-9] + b"\xdd\xff\xff\xff\xff", "malformed"),
    ],
)
def test_bytes_that_are_not_a_result(value: bytes | None, code: str) -> None:
    assert rejection(value, MSGPACK).code == code


@pytest.mark.parametrize("value", [b"[1]", b'{"id":"a","id":"b"}', b'{"id":"a"', b"\xef\xbb\xbf{}", b"NaN"])
def test_json_that_is_not_a_result(value: bytes) -> None:
    assert rejection(value, JSON).code == "malformed"


def test_the_limit_of_results() -> None:
    value = dump({**PREDICTION, "prediction": [1.5] * 100}, MSGPACK)
    assert rejection(value, MSGPACK, Limits(result_bytes_max=len(value) - 1)).code == "too_large"
    decode_result(value, MSGPACK, Limits(result_bytes_max=len(value)))


VALUES = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63) | st.booleans() | st.text()


@given(st.lists(VALUES) | st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.sampled_from(CODECS))
def test_values_that_are_encoded_together_have_the_same_bytes(values: list[Any], codec: Codec) -> None:
    assert codec.encode_each(values) == [codec.encode(value) for value in values]
