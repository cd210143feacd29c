"""The codec against an independent reading of the wire: the same verdicts, the same values, never another exception."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inferd.schemas.codec import (
    decode_alias,
    decode_manifest,
    decode_request,
    decode_result,
    encode_alias,
    encode_manifest,
    encode_request,
    encode_result,
    request_identity,
)
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests.request import InputData, PredictionRequest, TensorRows
from inferd.schemas.requests.result import Prediction
from tests.unit.schemas import reference
from tests.unit.schemas.mutation import JSON_PARTS, MSGPACK_PARTS, SMALL, mutated, request_bytes
from tests.unit.schemas.sample_records import ALIAS, MANIFEST, RESULTS

encodings = st.sampled_from([MSGPACK, JSON])
UNREADABLE = {"malformed", "too_large", "too_deep", "invalid_id"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(floats, st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none(), texts)
names = texts.filter(lambda name: name != "shape")
rows = st.integers(1, 5).flatmap(lambda width: st.lists(st.lists(scalars, min_size=width, max_size=width), min_size=1))
inputs = st.one_of(
    st.lists(scalars),
    rows,
    st.dictionaries(names, scalars),
    st.lists(st.dictionaries(names, scalars), min_size=1),
)


def as_sent(data: InputData, codec: Codec) -> Any:
    """`input_data` before decoding."""
    if isinstance(data, TensorRows):
        content = data.data if codec is MSGPACK else base64.b64encode(data.data).decode()
        return {"dtype": data.dtype, "shape": list(data.shape), "data": content}
    return data.rows[0] if data.single else data.rows


def decoded(value: bytes, codec: Codec) -> PredictionRequest | InferenceError:
    try:
        return decode_request(value, codec, SMALL)
    except InferenceError as error:
        return error


def refused_by_reference(value: bytes, codec: Codec) -> bool:
    try:
        reference.request(value, codec, SMALL)
    except reference.RefusedError:
        return True
    return False


def check_against_reference(value: bytes, codec: Codec) -> None:
    request = decoded(value, codec)
    if isinstance(request, InferenceError):
        assert refused_by_reference(value, codec), f"{value!r} was refused: {request.message}"
        request.message.encode()
        identity = request_identity(value, codec, SMALL)
        assert identity == (None, None) or request.code not in UNREADABLE
        return
    fields = reference.request(value, codec, SMALL)
    sent = as_sent(request.input_data, codec)
    if isinstance(request.input_data, TensorRows):
        assert sent == fields["input_data"]
    else:
        assert reference.same(sent, fields["input_data"])
    assert str(request.model) == fields["model_id"]
    assert request.id == fields.get("id")
    asked = fields.get("outputs", ["prediction"])
    assert list(request.outputs) == sorted(asked, key=lambda name: name not in reference.OUTPUTS)


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
def test_mutated_requests_get_the_verdict_and_the_values_of_the_reference(codec: Codec) -> None:
    random = Random(20260)
    verdicts = Counter[str]()
    for _ in range(8_000):
        value = mutated(random, request_bytes(random, codec), codec)
        check_against_reference(value, codec)
        request = decoded(value, codec)
        verdicts[request.code if isinstance(request, InferenceError) else "ok"] += 1
    # The run is only meaningful if it reaches every verdict often enough.
    assert verdicts["ok"] > 1_000
    assert verdicts["malformed"] > 1_000
    for code in ("too_large", "invalid_id", "invalid_value", "schema_mismatch", "too_deep"):
        assert verdicts[code] >= 3, code


@example(b"")
@example(b"\xc1")
@example(b'"\\')
@given(st.binary(max_size=200))
def test_any_bytes_get_a_typed_error_or_a_request(value: bytes) -> None:
    for codec in (MSGPACK, JSON):
        check_against_reference(value, codec)


# Regression: found by mutation.
@pytest.mark.parametrize(
    "value",
    [
        b'{"model_id":"m","input_data":{"dtype":"<u2","\\u0073hape":[4,0],"data":""}}',
        b'{"model_id":"m","input_data":["[1]"' + b",0" * 41 + b"]}",
        b'{"model_id":"m","id":"a:b","\\u0069d":"a","input_data":[1]}',
        b'{"model_id":"m","id":"a:b","id":"ab","input_data":[1]}',
    ],
)
def test_found_by_mutation(value: bytes) -> None:
    check_against_reference(value, JSON)


@settings(max_examples=200)
@given(inputs)
def test_output_of_packb_is_decoded_to_equal_values(data: Any) -> None:
    value = msgpack.packb({"model_id": "m", "input_data": data})
    assert reference.same(as_sent(decode_request(value, MSGPACK, DEFAULT_LIMITS).input_data, MSGPACK), data)


@settings(max_examples=200)
@given(inputs, st.booleans(), st.sampled_from([None, 2]))
def test_output_of_dumps_is_decoded_to_equal_values(data: Any, ascii_only: bool, indent: int | None) -> None:
    value = json.dumps({"model_id": "m", "input_data": data}, ensure_ascii=ascii_only, indent=indent).encode()
    assert reference.same(as_sent(decode_request(value, JSON, DEFAULT_LIMITS).input_data, JSON), data)


@settings(max_examples=200)
@given(inputs, encodings)
def test_the_reference_reads_encoded_requests(data: Any, codec: Codec) -> None:
    value = encode_request(data, "m:1", id="x", outputs=["raw", "leaves"], codec=codec)
    expected = {"id": "x", "model_id": "m:1", "input_data": data, "outputs": ["raw", "leaves"]}
    assert reference.same(reference.loads(value, codec), expected)
    assert decode_request(value, codec, DEFAULT_LIMITS).id == "x"


@settings(max_examples=200)
@given(st.floats())
def test_every_float64_survives(number: float) -> None:
    value = encode_request([number], "m")
    row = as_sent(decode_request(value, MSGPACK, DEFAULT_LIMITS).input_data, MSGPACK)
    assert reference.same(row, [number])
    if math.isfinite(number):
        value = encode_request([number], "m", codec=JSON)
        assert reference.same(as_sent(decode_request(value, JSON, DEFAULT_LIMITS).input_data, JSON), [number])


values = st.one_of(floats, st.integers(-(2**63), 2**63), texts, st.lists(floats), st.lists(st.lists(st.lists(floats))))


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(reference.OUTPUTS), values),
    st.dictionaries(texts.filter(lambda name: name not in reference.OUTPUTS), values, max_size=3),
    encodings,
)
def test_results_round_trip_and_the_reference_reads_them(
    outputs: dict[str, Any], own: dict[str, Any], codec: Codec
) -> None:
    result = Prediction("0-1", "m", 3, "d" * 64, outputs | own)
    value = encode_result(result, codec)
    assert decode_result(value, codec) == result
    expected = {"id": "0-1", "model_id": "m", "version": 3, "digest": "d" * 64, **outputs}
    if own:
        expected["outputs"] = own
    assert reference.same(reference.loads(value, codec), expected)


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
def test_mutated_results_manifests_and_aliases_raise_typed_errors_only(codec: Codec) -> None:
    random = Random(7)
    parts = [*(MSGPACK_PARTS if codec is MSGPACK else JSON_PARTS), b""]
    samples: list[tuple[Callable[[bytes], object], bytes]] = [
        (lambda value: decode_manifest(value, codec=codec), encode_manifest(MANIFEST, codec)),
        (lambda value: decode_alias(value, codec=codec), encode_alias(ALIAS, codec)),
        *[(lambda value: decode_result(value, codec), encode_result(result, codec)) for result in RESULTS.values()],
    ]
    refused = 0
    for _ in range(4_000):
        decode, value = random.choice(samples)
        data = bytearray(value)
        place = random.randint(0, len(data))
        data[place : place + random.randint(0, 4)] = random.choice([*parts, random.randbytes(1)])
        try:
            decode(bytes(data))
        except InferenceError as error:
            error.message.encode()
            refused += 1
    assert refused > 2_000
