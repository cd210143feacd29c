"""The bad-input matrix, row by row: the code, and the content of the message."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from inferd.schemas.codec import decode_request, request_identity
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests.request import NamedRows

LIMIT = DEFAULT_LIMITS.message_bytes_max


def packed(raw: bytes) -> bytes:
    """A MessagePack request with these bytes as its `input_data`."""
    return b"\x82\xa8model_id\xa1m\xaainput_data" + raw


def text(raw: str) -> bytes:
    """A JSON request with this text as its `input_data`."""
    return f'{{"model_id":"m","input_data":{raw}}}'.encode()


def both(**fields: Any) -> list[tuple[bytes, Codec]]:
    request = {"model_id": "m", "input_data": [1.5], **fields}
    return [(msgpack.packb(request), MSGPACK), (json.dumps(request).encode(), JSON)]


def rejection(value: bytes | None, codec: Codec, limits: Limits = DEFAULT_LIMITS) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        decode_request(value, codec, limits)
    return caught.value


OK = packed(b"\x91\x01")

MALFORMED_MSGPACK = {
    "null value": (None, "no value"),
    "empty": (b"", "empty value"),
    "truncated": (OK[:-1], "byte 23"),
    "truncated in a string": (OK[:8], "truncated"),
    "cut length": (packed(b"\xdc\x00"), "cut off"),
    "trailing bytes": (OK + b"\x00", "ends at byte 25 of 26"),
    "two messages": (OK + OK, "trailing"),
    "0xc1": (packed(b"\x91\xc1"), "0xc1 at byte 24"),
    "0xc1 in front": (b"\xc1", "0xc1 at byte 0"),
    "bad UTF-8 in a value": (packed(b"\x91\xa1\xff"), "byte 1 is not UTF-8"),
    "bad UTF-8 in a key": (packed(b"\x81\xa1\xff\x01"), "not UTF-8"),
    "bad UTF-8 in the model_id": (OK.replace(b"\xa1m", b"\xa1\xff"), "byte 10 is not UTF-8"),
    "surrogate in UTF-8": (packed(b"\x91\xa3\xed\xa0\x80"), "not UTF-8"),
    "timestamp": (packed(b"\xd6\xff\x00\x00\x00\x00"), "extension"),
    "timestamp out of range": (packed(b"\x91\xc7\x0c\xff" + b"\xff" * 12), "extension type at byte 1"),
    "ext": (packed(b"\x91\xd4\x05\x00"), "extension"),
    "ext as the whole": (b"\xc7\x0c\xff" + b"\xff" * 12, "extension type at byte 0"),
    "array claims 4G": (packed(b"\xdd\xff\xff\xff\xff\x01"), "claims 4294967295"),
    "inner array claims 4G": (packed(b"\x91\xdd\xff\xff\xff\xff"), "claims 4294967295"),
    "map claims 4G": (packed(b"\xdf\xff\xff\xff\xff\xa1a"), "claims 8589934590"),
    "string claims 4G": (packed(b"\xdb\xff\xff\xff\xffa"), "claims 4294967295"),
    "bin claims 4G": (packed(b"\xc6\xff\xff\xff\xffa"), "claims 4294967295"),
    "outer map claims 4G": (b"\xdf\xff\xff\xff\xff" + OK[1:], "claims"),
    "repeated id": (b"\x84" + OK[1:] + b"\xa2id\xa1a\xa2id\xa1b", "'id' at byte 30 appears twice"),
    "repeated input_data": (b"\x83" + OK[1:] + b"\xaainput_data\x91\x02", "'input_data'"),
    "repeated key in a wide map": (b"\xde\x00\x03" + OK[1:] + b"\xa8model_id\xa1m", "'model_id'"),
    "repeated in another spelling": (b"\x84" + OK[1:] + b"\xd9\x02id\xa1a\xa2id\xa1b", "appears twice"),
    "bin key": (b"\x83" + OK[1:] + b"\xc4\x02id\xa1a", "not a string"),
    "integer key": (b"\x83" + OK[1:] + b"\x01\xa1a", "key at byte 25 is not a string"),
    "integer feature name": (packed(b"\x81\x01\x01"), "not a string"),
    "bin value": (packed(b"\x91\xc4\x01a"), "feature 0: "),
    "bin as input": (packed(b"\xc4\x01a"), "expected a row"),
    "number as input": (packed(b"\x01"), "expected a row"),
    "array as the whole": (b"\x91\x01", "got `array`"),
    "nil as the whole": (b"\xc0", "got `None`"),
    "JSON by mistake": (text("[1]"), "content-type: application/json"),
}


@pytest.mark.parametrize("name", MALFORMED_MSGPACK)
def test_malformed_msgpack(name: str) -> None:
    value, says = MALFORMED_MSGPACK[name]
    error = rejection(value, MSGPACK)
    assert (error.code, says in error.message) == ("malformed", True), error.message
    assert request_identity(value, MSGPACK, DEFAULT_LIMITS) == (None, None)


MALFORMED_JSON = {
    "null value": (None, "no value"),
    "empty": (b"", "empty value"),
    "white space": (b"  ", "truncated"),
    "truncated": (text("[1]")[:-1], "truncated"),
    "trailing bytes": (text("[1]") + b"x", "trailing"),
    "two messages": (text("[1]") * 2, "trailing"),
    "trailing comma": (text("[1,]"), "trailing comma"),
    "byte order mark": (b"\xef\xbb\xbf" + text("[1]"), "byte order mark"),
    "UTF-16": (text("[1]").decode().encode("utf-16"), "byte order mark"),
    "bad UTF-8": (text('["?"]').replace(b"?", b"\xff"), "byte 2 is not UTF-8"),
    "bad UTF-8 in a key": (text('{"?":1}').replace(b"?", b"\xff"), "not UTF-8"),
    "lone surrogate": (text(r'["\ud800"]'), "lone surrogate"),
    "lone low surrogate": (text(r'["\udc00"]'), "lone surrogate"),
    "lone surrogate in a key": (text(r'{"\ud800": 1}'), "lone surrogate"),
    "lone surrogate in the model_id": (b'{"model_id":"\\ud800","input_data":[1]}', "lone surrogate"),
    "NaN": (text("[NaN]"), "NaN at byte 30"),
    "Infinity": (text("[-Infinity]"), "-Infinity at byte 30"),
    "control character": (text('["a\nb"]'), "invalid character"),
    "leading zero": (text("[01]"), "invalid number"),
    "hexadecimal": (text("[0x1]"), "malformed"),
    "single quotes": (text("['a']"), "malformed"),
    "repeated model_id": (b'{"model_id":"m","model_id":"m","input_data":[1]}', "'model_id' at byte 16"),
    "repeated in another spelling": (b'{"id":"a","model_id":"m","input_data":[1],"i\\u0064":"b"}', "'id' at byte"),
    "repeated beside colons": (b'{"id":"a:b","id":"ab","model_id":"m","input_data":[1]}', "appears twice"),
    "repeated feature": (text('{"a":1,"a":2}'), "'a' at byte 7 appears twice"),
    "repeated feature in another spelling": (text(r'{"a":1,"\u0061":2}'), "'a' at byte"),
    "repeated feature in the second row": (text('[{"a":1},{"a":1,"a":2}]'), "appears twice"),
    "repeated shape": (text('{"dtype":"<f4","shape":[0,0],"shape":[0,0],"data":""}'), "appears twice"),
    "number as a key": (text("{1:1}"), "malformed"),
    "number as input": (text("1"), "expected a row"),
    "string as the whole": (b'"a"', "got `str`"),
    "MessagePack by mistake": (OK, "application/msgpack"),
}


@pytest.mark.parametrize("name", MALFORMED_JSON)
def test_malformed_json(name: str) -> None:
    value, says = MALFORMED_JSON[name]
    error = rejection(value, JSON)
    assert (error.code, says in error.message) == ("malformed", True), error.message
    assert request_identity(value, JSON, DEFAULT_LIMITS) == (None, None)


MALFORMED_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"input": [1]}, "`input`"),
    "unknown field with a newline": ({"in\nput": [1]}, "`in\\nput`"),
    "model_id a number": ({"model_id": 1}, "$.model_id"),
    "id a number": ({"id": 17}, "$.id"),
    "id null": ({"id": None}, "$.id"),
    "outputs a string": ({"outputs": "prediction"}, "$.outputs"),
    "outputs null": ({"outputs": None}, "$.outputs"),
    "outputs of numbers": ({"outputs": [1]}, "$.outputs"),
    "input_data null": ({"input_data": None}, "expected a row"),
    "a list in a row": ({"input_data": [1, [2]]}, "feature 1: "),
    "a map in a row": ({"input_data": [1, {"a": 2}]}, "feature 1: "),
    "a row of rows": ({"input_data": [[1], [[2]]]}, "row 1, feature 0: "),
    "a list in a named row": ({"input_data": {"a": 1, "b": [2]}}, "feature 'b': "),
    "a list in the second named row": ({"input_data": [{"a": 1}, {"a": 1, "b": [2]}]}, "row 1, feature 'b': "),
    "a number among rows": ({"input_data": [[1], 2]}, "row 1: "),
    "a named row among rows": ({"input_data": [[1], {"a": 1}]}, "row 1: "),
    "a row among named rows": ({"input_data": [{"a": 1}, [1]]}, "row 1: "),
    "dtype a number": ({"input_data": {"dtype": 1, "shape": [0, 0], "data": ""}}, "tensor dtype: "),
    "shape of strings": ({"input_data": {"dtype": "<f4", "shape": ["0", 0], "data": ""}}, "tensor shape: "),
    "tensor without data": ({"input_data": {"dtype": "<f4", "shape": [1, 1]}}, "'shape'"),
}


@pytest.mark.parametrize("name", MALFORMED_FIELDS)
def test_malformed_fields(name: str) -> None:
    fields, says = MALFORMED_FIELDS[name]
    for value, codec in both(**fields):
        error = rejection(value, codec)
        assert (error.code, says in error.message) == ("malformed", True), error.message


LONG_TEXTS: dict[str, tuple[Any, str]] = {
    "a long text in a row": ([1, "x" * 65_537], "row 0, feature 1: a string of more than 65536 characters"),
    "a long text in a named row": ({"a": "x" * 65_537}, "row 0, feature 'a': a string of more than 65536 characters"),
    "a long text in the second row": ([["x"], ["x" * 65_537]], "row 1, feature 0: a string of more than"),
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_text_names_row_and_feature(name: str) -> None:
    data, says = LONG_TEXTS[name]
    for value, codec in both(input_data=data):
        error = rejection(value, codec)
        assert (error.code, error.message.startswith(f"input_data: {says}")) == ("invalid_value", True), error.message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([1, 2**1024], "row 0, feature 1 is beyond float64"),
        ({"a": -(2**1024)}, "row 0, feature 'a' is beyond float64"),
        ([{"a": 1, "b": 2}, {"a": 2, "b": 2**1024}], "row 1, feature 'b' is beyond float64"),
    ],
)
def test_integers_beyond_float64_name_row_and_feature(data: Any, says: str) -> None:
    error = rejection(text(json.dumps(data)), JSON)
    assert (error.code, error.message) == ("invalid_value", f"input_data: {says}")


@pytest.mark.parametrize("missing", ["model_id", "input_data"])
def test_a_missing_field_is_named(missing: str) -> None:
    fields = {"model_id": "m", "input_data": [1]}
    del fields[missing]
    assert missing in rejection(msgpack.packb(fields), MSGPACK).message
    assert missing in rejection(json.dumps(fields).encode(), JSON).message


SMALL = Limits(
    message_bytes_max=4_096, rows_max=10, features_max=20, values_max=50, string_chars_max=30, id_chars_max=8
)
TOO_LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "bytes": ({"input_data": ["x" * 30] * 200}, "4096 are allowed"),
    "rows": ({"input_data": [[1]] * 11}, "10 "),
    "named rows": ({"input_data": [{}] * 11}, "10 "),
    "features": ({"input_data": [1] * 21}, "21 features; at most 20 are allowed"),
    "features beside a bracket in a string": ({"input_data": ["[", *[1] * 20]}, "21 features"),
    "features of rows": ({"input_data": [[1] * 21] * 2}, "21 features in a row"),
    "features of a named row": ({"input_data": {f"f{n}": 1 for n in range(21)}}, "21 features"),
    "features of named rows": ({"input_data": [{f"f{n}": 1 for n in range(21)}]}, "21 features"),
    "rows x features": ({"input_data": [[1] * 8] * 7}, "56 values"),
    "values of named rows": ({"input_data": [{f"f{n}": 1 for n in range(8)}] * 7}, "56 values"),
    "tensor rows": ({"input_data": {"dtype": "<f4", "shape": [11, 1], "data": ""}}, "11 rows"),
    "tensor features": ({"input_data": {"dtype": "<f4", "shape": [0, 21], "data": ""}}, "21 features"),
    "tensor values": ({"input_data": {"dtype": "<f4", "shape": [8, 7], "data": ""}}, "56 values"),
    "tensor of 2**62 rows": ({"input_data": {"dtype": "<f4", "shape": [2**62, 2**62], "data": ""}}, "rows"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_too_large(name: str) -> None:
    fields, says = TOO_LARGE[name]
    for value, codec in both(id="a", **fields):
        error = rejection(value, codec, SMALL)
        assert (error.code, says in error.message) == ("too_large", True), error.message
        assert request_identity(value, codec, SMALL) == (None, None)


def test_a_limit_itself_is_allowed() -> None:
    for data in ([[1] * 5] * 10, [1] * 20, ["x" * 30], {"x" * 30: 1}, [{"a": 1, "b": 2}] * 10):
        for value, codec in both(id="a" * 8, input_data=data):
            decode_request(value, codec, SMALL)
            decode_request(value.ljust(4_096) if codec is JSON else value, codec, SMALL)


@pytest.mark.parametrize("depth", [17, 30, 900, 1_000, 100_000])
def test_too_deep(depth: int) -> None:
    inner = depth - 1  # the request's own map is the first level
    for value, codec in (
        (packed(b"\x91" * inner + b"\xc0"), MSGPACK),
        (packed(b"\x81\xa1a" * inner + b"\xc0"), MSGPACK),
        (text("[" * inner + "]" * inner), JSON),
        (text('{"a":' * inner + "1" + "}" * inner), JSON),
    ):
        error = rejection(value, codec)
        assert (error.code, "16 levels" in error.message) == ("too_deep", True), error.message


def test_too_deep_behind_more_values_than_are_checked() -> None:
    wide = b"\xdd" + (60_001).to_bytes(4, "big") + b"\xc0" * 60_000 + b"\x91" * 5_000 + b"\xc0"
    assert rejection(packed(wide), MSGPACK).code == "too_deep"
    wide = b"\xdf" + (60_001).to_bytes(4, "big")
    wide += b"".join(b"\xa5%05d\x01" % n for n in range(60_000)) + b"\xa1a" + b"\x91" * 5_000 + b"\xc0"
    assert rejection(packed(wide), MSGPACK).code == "too_deep"


def test_the_maximum_depth_is_malformed_if_it_is_not_a_row() -> None:
    assert rejection(packed(b"\x91" * 15 + b"\xc0"), MSGPACK).code == "malformed"
    assert rejection(text("[" * 15 + "]" * 15), JSON).code == "malformed"


BAD_IDS = [
    "",
    "../etc",
    "a/b",
    "a\x00",
    "a\n",
    "a b",
    "а",  # Cyrillic
    "ａ",  # full width
    "١",  # Arabic-Indic one
    "x" * 65,
    "x" * 10_240,
]


@pytest.mark.parametrize("name", BAD_IDS)
def test_invalid_id(name: str) -> None:
    for fields in ({"id": name}, {"model_id": name}, {"model_id": f"m@{name}"}, {"model_id": f"m:{name}"}):
        for value, codec in both(**fields):
            error = rejection(value, codec)
            assert error.code == "invalid_id"
            assert len(error.message) < 300
            assert error.message.isprintable()
            assert request_identity(value, codec, DEFAULT_LIMITS) == (None, None)


@pytest.mark.parametrize("reference", ["m:0", "m:01", "m:-1", "m:1.0", "m:1@a", "m@a:1", "m:1234567890", "@a", ":1"])
def test_invalid_model_reference(reference: str) -> None:
    for value, codec in both(model_id=reference):
        assert rejection(value, codec).code == "invalid_id"


def test_an_id_over_the_configured_limit() -> None:
    for value, codec in both(id="a" * 9):
        assert rejection(value, codec, SMALL).code == "invalid_id"


INVALID_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "output without a name": ({"outputs": ["raw", ""]}, "'' has 0 characters; 1 to 256 are allowed"),
    "long name of an output": ({"outputs": ["a" * 257]}, "has 257 characters"),
    "repeated output": ({"outputs": ["raw", "raw"]}, "'raw' is named twice"),
    "no output": ({"outputs": []}, "empty list"),
    "long string": ({"input_data": [[1, "a"], [1, "a" * 65_537]]}, "row 1, feature 1: "),
    "long string in a named row": ({"input_data": {"x": "a" * 65_537}}, "feature 'x': "),
    "complex": ({"input_data": {"dtype": "<c16", "shape": [0, 0], "data": ""}}, "'<c16'"),
    "objects": ({"input_data": {"dtype": "|O", "shape": [0, 0], "data": ""}}, "'|O'"),
    "big-endian": ({"input_data": {"dtype": ">f8", "shape": [0, 0], "data": ""}}, "'>f8'"),
    "one dimension": ({"input_data": {"dtype": "<f4", "shape": [0], "data": ""}}, "[rows, features]"),
    "three dimensions": ({"input_data": {"dtype": "<f4", "shape": [0, 0, 0], "data": ""}}, "[rows, features]"),
    "negative shape": ({"input_data": {"dtype": "<f4", "shape": [-1, 0], "data": ""}}, "[rows, features]"),
    "endless shape": ({"input_data": {"dtype": "<f4", "shape": [1] * 300, "data": ""}}, "shape"),
}


@pytest.mark.parametrize("name", INVALID_VALUES)
def test_invalid_value(name: str) -> None:
    fields, says = INVALID_VALUES[name]
    for value, codec in both(id="a:1", **fields):
        error = rejection(value, codec)
        assert (error.code, says in error.message) == ("invalid_value", True), error.message
        assert request_identity(value, codec, DEFAULT_LIMITS) == ("a:1", "m")


def test_too_many_outputs() -> None:
    for value, codec in both(id="a", outputs=[f"output {n}" for n in range(101)]):
        assert (rejection(value, codec).code, rejection(value, codec).message) == (
            "invalid_value",
            "outputs: more than 100 names",
        )
        assert request_identity(value, codec, DEFAULT_LIMITS) == (None, None)


@pytest.mark.parametrize(
    ("number", "says"),
    [("1e400", "feature 1"), ("-1e400", "feature 1"), ("1" + "0" * 309, "row 0"), ("1" * 5_000, "feature 1")],
)
def test_json_numbers_beyond_float64(number: str, says: str) -> None:
    for raw in (f"[1,{number}]", f"[[1,{number}]]"):
        error = rejection(text(raw), JSON)
        assert (error.code, says in error.message) == ("invalid_value", True), error.message
    assert rejection(text(f'{{"x":{number}}}'), JSON).code == "invalid_value"


SCHEMA_MISMATCHES: dict[str, tuple[Any, str]] = {
    "a longer row": ([[1, 2], [1, 2], [1, 2, 3]], "row 2 has 3 features, and row 0 has 2"),
    "an empty row": ([[1, 2], []], "row 1 has 0 features"),
}


@pytest.mark.parametrize("name", SCHEMA_MISMATCHES)
def test_schema_mismatch(name: str) -> None:
    data, says = SCHEMA_MISMATCHES[name]
    for value, codec in both(id="a", model_id="m:7", input_data=data):
        error = rejection(value, codec)
        assert (error.code, says in error.message) == ("schema_mismatch", True), error.message
        assert request_identity(value, codec, DEFAULT_LIMITS) == ("a", "m:7")


def test_bad_tensor_bytes() -> None:
    def tensor(data: Any, **fields: Any) -> dict[str, Any]:
        return {"dtype": "<f4", "shape": [1, 2], "data": data, **fields}

    for data, says in ((b"\x00" * 7, "7 bytes"), (b"\x00" * 9, "9 bytes"), ("AAAAAAAAAAA=", "got `str`")):
        error = rejection(msgpack.packb({"model_id": "m", "input_data": tensor(data)}), MSGPACK)
        assert (error.code, says in error.message) == ("malformed", True), error.message
    for base64, says in (("AAAA", "4 char"), ("AAAAAAAAAA?=", "base64"), ("AAAAAAAAAAé=", "base64"), (1, "got")):
        error = rejection(json.dumps({"model_id": "m", "input_data": tensor(base64)}).encode(), JSON)
        assert (error.code, says in error.message) == ("malformed", True), error.message
    booleans = tensor(b"\x00\x02", dtype="|b1")
    assert rejection(msgpack.packb({"model_id": "m", "input_data": booleans}), MSGPACK).code == "invalid_value"


def test_the_first_error_in_the_documented_order() -> None:
    fields: dict[str, Any] = {"id": "a/b", "model_id": "a/b", "outputs": [], "input_data": [[1], [1, 2]]}
    seen = []
    for right in ({}, {"id": "a"}, {"model_id": "m"}, {"outputs": ["raw"]}):
        fields |= right
        errors = [rejection(value, codec) for value, codec in both(**fields)]
        assert len({error.message for error in errors}) == 1
        seen.append((errors[0].code, errors[0].message.split()[0]))
    assert seen == [
        ("invalid_id", "id"),
        ("invalid_id", "model_id"),
        ("invalid_value", "outputs:"),
        ("schema_mismatch", "input_data:"),
    ]


def test_a_structural_fault_takes_precedence_over_a_bad_id() -> None:
    bad_id = b"\x83\xa2id\xa1/\xa8model_id\xa1m\xaainput_data"
    assert rejection(bad_id + b"\x91\x01", MSGPACK).code == "invalid_id"
    assert rejection(bad_id + b"\x91" * 20 + b"\x01", MSGPACK).code == "too_deep"
    assert rejection(bad_id + b"\x91\xd4\x05\x00", MSGPACK).code == "malformed"


def test_names_have_no_length_of_their_own() -> None:
    for value, codec in both(model_id="m", input_data={"x" * 5_000: 1}):
        assert decode_request(value, codec, DEFAULT_LIMITS).input_data == NamedRows([{"x" * 5_000: 1}], True)
