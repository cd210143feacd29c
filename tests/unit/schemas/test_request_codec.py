from __future__ import annotations

import array
import datetime
import json
import struct
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest

from inferd.schemas.codec import (
    DECODE_ERRORS,
    check_envelope,
    decode_envelope,
    decode_input_data,
    decode_request,
    encode_request,
    request_identity,
)
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError, InvalidIdError, InvalidValueError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests.envelope import ENVELOPE_DECODERS, repeats_key
from inferd.schemas.requests.request import (
    InputData,
    ListRows,
    ModelReference,
    NamedRows,
    PredictionRequest,
    TensorRows,
)
from inferd.schemas.requests.tensors import ITEM_BYTES
from tests.unit.schemas.reference import same

CODECS: tuple[Codec, ...] = (MSGPACK, JSON)


def sent(data: Any, codec: Codec = MSGPACK) -> InputData:
    return decode_request(encode_request(data, "m", codec=codec), codec, DEFAULT_LIMITS).input_data


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_every_field(codec: Codec) -> None:
    value = encode_request([1.5], "m@champion", id="a:1", outputs=["leaves", "prediction"], codec=codec)
    assert decode_request(value, codec, DEFAULT_LIMITS) == PredictionRequest(
        ModelReference("m", alias="champion"), ListRows([[1.5]], single=True), ("leaves", "prediction"), "a:1"
    )
    assert request_identity(value, codec, DEFAULT_LIMITS) == ("a:1", "m@champion")


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_omitted_fields(codec: Codec) -> None:
    request = decode_request(encode_request([1], "m", codec=codec), codec, DEFAULT_LIMITS)
    assert (request.id, request.outputs) == (None, ("prediction",))
    assert request_identity(encode_request([1], "m"), MSGPACK, DEFAULT_LIMITS) == (None, "m")


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize(
    ("data", "decoded"),
    [
        ([1, 2.5, None, True, "JFK"], ListRows([[1, 2.5, None, True, "JFK"]], single=True)),
        ([[1, 2], [3, None]], ListRows([[1, 2], [3, None]], single=False)),
        ([[1]], ListRows([[1]], single=False)),
        ([], ListRows([], single=False)),
        ([[]], ListRows([[]], single=False)),
        ([[], []], ListRows([[], []], single=False)),
        ({"a": 1, "b": "x"}, NamedRows([{"a": 1, "b": "x"}], single=True)),
        ({}, NamedRows([{}], single=True)),
        ([{"a": 1}, {"b": None}, {}], NamedRows([{"a": 1}, {"b": None}, {}], single=False)),
        ({"shape": 1, "dtype": "x", "data": 2}, NamedRows([{"shape": 1, "dtype": "x", "data": 2}], single=True)),
        ([2**64 - 1, -(2**63)], ListRows([[2**64 - 1, -(2**63)]], single=True)),
    ],
)
def test_layouts(data: Any, decoded: InputData, codec: Codec) -> None:
    assert sent(data, codec) == decoded
    assert sent(decoded, codec) == decoded


def test_types_are_preserved() -> None:
    for codec in CODECS:
        rows = sent([1, 1.0, True, "1", None], codec)
        assert isinstance(rows, ListRows)
        assert same(rows.rows, [[1, 1.0, True, "1", None]])


def test_a_map_of_any_header_width() -> None:
    body = b"\xa8model_id\xa1m\xaainput_data\x91\x01"
    for header in (b"\x82", b"\xde\x00\x02", b"\xdf\x00\x00\x00\x02"):
        assert decode_request(header + body, MSGPACK, DEFAULT_LIMITS).input_data == ListRows([[1]], single=True)


def test_rows_of_any_header_width() -> None:
    for row in (b"\x91\x01", b"\xdc\x00\x01\x01", b"\xdd\x00\x00\x00\x01\x01"):
        assert decode_input_data(row, MSGPACK, DEFAULT_LIMITS) == ListRows([[1]], single=True)
        assert decode_input_data(b"\x91" + row, MSGPACK, DEFAULT_LIMITS) == ListRows([[1]], single=False)


def test_input_data_is_accepted_as_raw_and_as_bytes() -> None:
    for raw in (b"\x91\x01", msgspec.Raw(b"\x91\x01")):
        assert decode_input_data(raw, MSGPACK, DEFAULT_LIMITS) == ListRows([[1]], single=True)


@pytest.mark.parametrize("raw", [b"", b"\x91", b"\x91\x01\x01", b"\xdd\xff\xff\xff\xff", b"\xc1", b"\xff"])
def test_input_data_is_also_checked_separately(raw: bytes) -> None:
    for codec in CODECS:
        with pytest.raises(InferenceError) as caught:
            decode_input_data(raw, codec, DEFAULT_LIMITS)
        assert caught.value.code == "malformed"


def test_json_integers_that_javascript_writes() -> None:
    value = b'{"model_id":"m","input_data":[100000000000000000000,-0,1E5]}'
    rows = decode_request(value, JSON, DEFAULT_LIMITS).input_data
    assert isinstance(rows, ListRows)
    assert same(rows.rows, [[10**20, 0, 1e5]])
    longest = f'{{"model_id":"m","input_data":[{int(1.7e308)}]}}'.encode()
    assert decode_request(longest, JSON, DEFAULT_LIMITS).input_data == ListRows([[int(1.7e308)]], single=True)


def test_json_with_escapes_and_colons_everywhere() -> None:
    value = rb'{"m\u006fdel_id":"m:3","id":"a:b:c","input_data":{"a:b":"c:d","\"":1,"\\":2,"{[,":3}}'
    assert decode_request(value, JSON, DEFAULT_LIMITS) == PredictionRequest(
        ModelReference("m", 3), NamedRows([{"a:b": "c:d", '"': 1, "\\": 2, "{[,": 3}], single=True), id="a:b:c"
    )


class TestEnvelope:
    def test_is_cheap(self) -> None:
        value = encode_request([1.5], "m", id="a")
        envelope = decode_envelope(value, MSGPACK, DEFAULT_LIMITS)
        assert bytes(envelope.input_data) == msgpack.packb([1.5])
        assert check_envelope(envelope, DEFAULT_LIMITS) == ("a", ModelReference("m"), ("prediction",))

    def test_a_caller_that_loops_itself(self) -> None:
        for value in (encode_request([1.5], "m"), encode_request([1], "m", id="a", outputs=["raw"])):
            assert not repeats_key(value, ENVELOPE_DECODERS[MSGPACK](value), MSGPACK)
        twice = b"\x83\xa8model_id\xa1m\xaainput_data\x91\x01\xa8model_id\xa1m"
        assert repeats_key(twice, ENVELOPE_DECODERS[MSGPACK](twice), MSGPACK)

    @pytest.mark.parametrize("spaces", [b"", b" ", b"\n\t"])
    @pytest.mark.parametrize(
        ("field", "repeats"),
        [
            (b"", False),
            (b'"id":"",', True),
            (b'"id":"ab",', True),
            (b'"input_data":0,', True),
            (b'"model_id":"",', True),
        ],
    )
    def test_a_repeated_key_is_found_however_short_the_request_is(
        self, field: bytes, repeats: bool, spaces: bytes
    ) -> None:
        for rest in (b'"id":"","model_id":"","input_data":[]}', b'"model_id":"m","input_data":{":":1},"id":"a"}'):
            value = (b"{" + field + rest).replace(b",", b"," + spaces)
            assert repeats_key(value, ENVELOPE_DECODERS[JSON](value), JSON) is repeats

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"\xc1",
            b"\x82\xa8model_id\xa1\xff\xaainput_data\x90",
            b"\x82\xa8model_id\xa1m\xaainput_data" + b"\x91" * 5_000,
            b"\x82\xa8model_id\xc7\x0c\xff" + b"\xff" * 12,
        ],
    )
    def test_exceptions_of_the_underlying_decoder(self, value: bytes) -> None:
        with pytest.raises(DECODE_ERRORS):
            ENVELOPE_DECODERS[MSGPACK](value)

    def test_decoder_errors_that_are_distinguished_by_their_messages(self) -> None:
        """`row_decoders` and `envelope` know these by how msgspec words them."""
        for type_, raw, words in (
            (list[float | int], b"[1e400]", "Number out of range"),
            (list[float | int], b"[" + b"1" * 5_000 + b"]", "Integer value out of range"),
        ):
            with pytest.raises(msgspec.ValidationError, match=f"^{words}"):
                msgspec.json.decode(raw, type=type_)


class TestTensors:
    @pytest.mark.parametrize("codec", CODECS, ids=str)
    @pytest.mark.parametrize("dtype", ITEM_BYTES)
    def test_every_dtype_is_taken_from_an_array(self, dtype: str, codec: Codec) -> None:
        matrix = np.arange(6).reshape(2, 3).astype(dtype)
        tensor = sent(matrix, codec)
        assert isinstance(tensor, TensorRows)
        assert (tensor.dtype, tensor.shape) == (dtype, (2, 3))
        np.testing.assert_array_equal(np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape), matrix)
        assert sent(tensor, codec) == tensor

    @pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1)])
    def test_shapes(self, shape: tuple[int, int]) -> None:
        for codec in CODECS:
            tensor = sent(np.zeros(shape), codec)
            assert isinstance(tensor, TensorRows)
            assert tensor.shape == shape

    def test_as_a_map(self) -> None:
        fields = {"dtype": "<f8", "shape": [1, 1], "data": struct.pack("<d", 1.5)}
        for codec in CODECS:
            assert sent(fields, codec) == TensorRows("<f8", (1, 1), struct.pack("<d", 1.5))

    def test_column_order_is_made_row_order(self) -> None:
        matrix = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        assert sent(matrix) == sent(np.ascontiguousarray(matrix))
        assert sent(matrix[:, ::2]) == sent(matrix[:, ::2].copy())

    @pytest.mark.parametrize("dtype", [">f8", "<u8", "<f2"])
    def test_dtypes_unknown_to_the_wire_format_become_rows(self, dtype: str) -> None:
        assert sent(np.array([[1, 2], [3, 4]], dtype=dtype)) == ListRows([[1, 2], [3, 4]], single=False)


class TestClientInput:
    @pytest.mark.parametrize(
        ("data", "decoded"),
        [
            ((1, 2.5), ListRows([[1, 2.5]], single=True)),
            ([(1,), (2,)], ListRows([[1], [2]], single=False)),
            ([np.float64(1.5), np.int64(2), np.bool_(True), np.str_("a"), np.float32(0.5)], None),
            ({"a": np.float32(0.5)}, NamedRows([{"a": 0.5}], single=True)),
            (np.array([1.5, 2.5]), ListRows([[1.5, 2.5]], single=True)),
            ([np.array([1.5]), np.array([2.5])], ListRows([[1.5], [2.5]], single=False)),
            (np.array([["a", 1.5]], dtype=object), ListRows([["a", 1.5]], single=False)),
            (array.array("d", [1.5]), ListRows([[1.5]], single=True)),
        ],
    )
    def test_python_values(self, data: Any, decoded: InputData | None) -> None:
        expected = decoded or ListRows([[1.5, 2, True, "a", 0.5]], single=True)
        for codec in CODECS:
            assert sent(data, codec) == expected

    def test_missing_values(self) -> None:
        assert sent([float("nan"), None], JSON) == ListRows([[None, None]], single=True)
        rows = sent([float("nan"), None])
        assert isinstance(rows, ListRows)
        assert same(rows.rows, [[float("nan"), None]])

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ("JFK", "str"),
            (b"JFK", "bytes"),
            (1.5, "float"),
            (None, "NoneType"),
            ({1, 2}, "set"),
            ([1, 2j], "row 0, feature 1: complex"),
            ([1, datetime.date(2026, 1, 1)], "feature 1: date"),
            ([[1], [b"x"]], "row 1, feature 0: bytes"),
            ([[1], 2], "row 1, int among rows"),
            ([[1], [[2]]], "row 1, feature 0: list"),
            ({"a": [1]}, "feature 'a': list"),
            ({1: 1}, "1 is not a string"),
            ([2**1024], "row 0, feature 0 is beyond float64"),
            ({"a": -(2**1024)}, "row 0, feature 'a' is beyond float64"),
            (["\ud800"], "feature 0: a lone surrogate at character 0"),
            ([{"a": "x\udc00"}], "row 0, feature 'a': a lone surrogate at character 1"),
            (np.zeros((1, 1, 1)), "list"),
            (np.array(["2026-01-01"], dtype="datetime64[D]"), "an array of times"),
            (np.float64(1.5), "float"),
        ],
    )
    def test_values_that_cannot_be_sent(self, data: Any, says: str) -> None:
        with pytest.raises(InvalidValueError, match=says):
            encode_request(data, "m")

    @pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 2**1023, 10**30 + 1])
    def test_integers_beyond_64_bits_become_numbers_where_the_codec_has_none(self, value: int) -> None:
        exact = -(2**63) <= value < 2**64
        assert sent({"a": value}, MSGPACK) == NamedRows([{"a": value if exact else float(value)}], single=True)
        assert sent({"a": value}, JSON) == NamedRows([{"a": value}], single=True)

    def test_infinity_is_not_json(self) -> None:
        with pytest.raises(InvalidValueError, match="row 1, feature 0: JSON has no infinity"):
            encode_request([[1.0], [float("-inf")]], "m", codec=JSON)
        assert sent([float("inf")]) == ListRows([[float("inf")]], single=True)

    def test_names_are_checked_before_they_are_sent(self) -> None:
        with pytest.raises(InvalidIdError):
            encode_request([1], "a/b")
        with pytest.raises(InvalidIdError):
            encode_request([1], "m", id="")
        with pytest.raises(InvalidValueError):
            encode_request([1], "m", outputs=[""])
        with pytest.raises(InvalidValueError, match="more than 100 names"):
            encode_request([1], "m", outputs=[str(n) for n in range(101)])

    def test_outputs_are_in_the_order_of_results(self) -> None:
        value = encode_request([1], "m", outputs=["embedding", "raw", "a", "prediction"])
        assert decode_request(value, MSGPACK, DEFAULT_LIMITS).outputs == ("raw", "prediction", "embedding", "a")

    def test_fields_are_in_the_order_of_the_wire(self) -> None:
        value = encode_request([1], "m", outputs=["raw"], id="a", codec=JSON)
        assert list(json.loads(value)) == ["id", "model_id", "input_data", "outputs"]
