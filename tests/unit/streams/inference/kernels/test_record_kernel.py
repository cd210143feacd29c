"""The record kernel beside the typed decoder, its twin in Python."""

from __future__ import annotations

import json
import random
from typing import Any

import msgpack
import numpy as np
import pytest

from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.streams.inference.kernels import RecordKernel, RowSchema, library
from tests.fuzz import record_kernel
from tests.fuzz.row_kernel import SCHEMAS, schemas
from tests.fuzz.tree_kernel import Guarded

PATHS = (("a",), ("order", "b"), ("order", "c"))
SCHEMA = RowSchema(("a", "b", "c"), (), {2: {"AA": 0.0, "été": 1.0}}, (), False)


def read(record: Any, codec: Codec = JSON) -> list[float] | None:
    kernel = RecordKernel(library(), SCHEMA, PATHS, "score")
    data = (
        record
        if isinstance(record, bytes)
        else json.dumps(record, ensure_ascii=False).encode()
        if codec is JSON
        else msgpack.packb(record)
    )
    matrix, fits = kernel.read("json" if codec is JSON else "msgpack", [data])
    assert len(matrix) == fits.sum()
    return matrix[0].tolist() if fits[0] else None


def compare_often(place: int, kernel: RecordKernel) -> None:
    rng, guarded = random.Random(place), Guarded()
    try:
        for _ in range(200):
            record_kernel.compare_once(rng, guarded, place, kernel)
    finally:
        guarded.release()


@pytest.mark.usefixtures("built")
def test_the_kernel_equals_the_typed_decoder_without_access_out_of_bounds() -> None:
    assert record_kernel.fuzz_record_kernel(60, seed=1, rounds=120).startswith("record kernel: ")


@pytest.mark.parametrize("place", range(len(SCHEMAS)))
@pytest.mark.usefixtures("built")
def test_seeded_mistakes_are_found(place: int) -> None:
    features, columns = schemas()[place], SCHEMAS[place][0]
    swapped = features.record_kernel(record_kernel.paths_of(columns)[::-1], record_kernel.NEW_FIELD)
    assert swapped is not None
    with pytest.raises(AssertionError):
        compare_often(place, swapped)


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=str)
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"a": 1, "order": {"b": 2.5, "c": "AA"}}, [1, 2.5, 0]),
        ({"order": {"c": "été", "b": True}, "a": -3}, [-3, 1, 1]),
        ({"order": {}}, [None, None, None]),
        ({"a": 1, "order": None}, [1, None, None]),
        ({"a": 1, "x": {"a": [1, {"b": "c"}, []], "": {}}, "order": {"y": [[]], "b": 2, "a": 3}}, [1, 2, None]),
        ({"b": 1, "c": 2, "other": "text of more than eight bytes: été", "a": 7}, [7, None, None]),
    ],
)
@pytest.mark.usefixtures("built")
def test_usual_records_are_read(codec: Codec, record: Any, expected: list[float | None]) -> None:
    np.testing.assert_array_equal(read(record, codec), np.array(expected, np.float64))


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=str)
@pytest.mark.parametrize(
    "record",
    [
        {"a": "1"}, {"a": [1]}, {"a": {}}, {"order": []}, {"order": 7}, {"order": {"c": "ZZ"}}, {"order": {"c": 1}},
        {"a": 1, "score": 1}, {"a": 1, "score": None}, [1], 7, None,
    ],
)  # fmt: skip
@pytest.mark.usefixtures("built")
def test_everything_else_is_left_to_the_typed_decoder(codec: Codec, record: Any) -> None:
    assert read(record, codec) is None


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{", b"[1", b"[1,]", b'{"x"}', b'{"x":1,}', b"{1:2}", b"01", b"1.", b"-", b"1e", b"+1", b"1e309", b"NaN",
        b"tru", b'"\\x"', b'"\\u12"', b'"\\ud800"', b'"\\ud800\\u0041"', b'"\\udc00"', b'"\n"', b'"\xff"', b'"\xc3"',
        b'"\xed\xa0\x80"', b'"', b"[" * 61 + b"]" * 61, b"1 2", b"]", b"1" * 400,
    ],
)  # fmt: skip
@pytest.mark.usefixtures("built")
def test_json_with_invalid_or_unusual_values_of_other_fields_is_left_to_the_typed_decoder(value: bytes) -> None:
    assert read(b'{"a":1,"x":' + value + b"}") is None


@pytest.mark.parametrize(
    "value",
    [
        b"[]", b"{}", b" [ 1 , { \"x\" : null } ] ", b"-0.5e-400", b"1e300", b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"',
        b'"\\ud83d\\ude00"', '"€ 😀"'.encode(), b"[" * 60 + b"]" * 60, b"1" * 300,
    ],
)  # fmt: skip
@pytest.mark.usefixtures("built")
def test_valid_values_of_other_fields_are_skipped(value: bytes) -> None:
    np.testing.assert_array_equal(read(b'{"x":' + value + b',"a":1}\n'), [1, np.nan, np.nan])


@pytest.mark.parametrize(
    "value",
    [
        b"\xc1", b"\xd9\x05ab", b"\xa1\xff", b"\x91", b"\x81\xa1x", b"\x81\x01\x01", b"\x81\xc0\x01", b"\xc4\x05a",
        b"\xd4\x01\x01", b"\xdf\0\0\0\1\xa1x\1", b"\xdc\xff\xff", b"\x91" * 61 + b"\x01", b"\xc6\xff\xff\xff\xff",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("built")
def test_messagepack_with_invalid_or_unusual_values_is_left_to_the_typed_decoder(value: bytes) -> None:
    assert read(b"\x82\xa1x" + value + b"\xa1a\x01", MSGPACK) is None


@pytest.mark.usefixtures("built")
def test_repeated_and_escaped_names_are_left_to_the_typed_decoder() -> None:
    assert read(b'{"a":1,"a":2}') is None
    assert read(b'{"order":{"b":1},"order":{"b":2}}') is None
    assert read(b'{"\\u0061":1}') is None
    np.testing.assert_array_equal(read(b'{"x":1,"x":2,"a":3}'), [3, np.nan, np.nan])


@pytest.mark.parametrize(
    "paths",
    [
        (("a",), ("b",)),
        (("a",), ("b",), ("b",)),
        (("a",), ("a", "b"), ("c",)),
        (("a", "b"), ("a",), ("c",)),
        (("a",), ("b",), ()),
        (("a",), ("b",), ('quo"te',)),
        (("a",), ("b",), ("score",)),
        (("a",), ("b",), ("score", "c")),
        (("a",), ("b",), ("c",) * 65),
    ],
)
@pytest.mark.usefixtures("built")
def test_paths_that_are_no_tree_are_rejected(paths: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"path|features|escapes"):
        RecordKernel(library(), SCHEMA, paths, "score")


@pytest.mark.usefixtures("built")
def test_a_name_that_no_record_may_have_can_be_absent_from_the_schema() -> None:
    kernel = RecordKernel(library(), SCHEMA, PATHS, None)
    assert kernel.read("json", [b'{"score":1,"a":2}'])[1].all()
    assert kernel.read("json", [])[0].shape == (0, 3)
