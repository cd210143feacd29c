"""The row kernel beside the typed decoder, its twin in Python."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import msgpack
import numpy as np
import pytest

from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.streams.inference import kernels_in_use, use_kernels
from inferd.streams.inference.kernels import RowKernel, RowSchema, library
from tests.fuzz import row_kernel
from tests.fuzz.tree_kernel import Guarded

FLOATS = RowSchema(["a", "ab", "carrier"], [False, True, True], {2: {"AA": 0.0, "été": 1.0}}, [0, 1, 2], False)


def kernel_of(**changes: Any) -> RowKernel:
    return RowKernel(library(), dataclasses.replace(FLOATS, **changes))


def read(row: Any, codec: Codec = JSON, **changes: Any) -> list[float] | None:
    data = (
        row
        if isinstance(row, bytes)
        else json.dumps(row, ensure_ascii=False).encode()
        if codec is JSON
        else msgpack.packb(row)
    )
    matrix, fits = kernel_of(**changes).read("json" if codec is JSON else "msgpack", [data])
    assert len(matrix) == fits.sum()
    return matrix[0].tolist() if fits[0] else None


@pytest.mark.usefixtures("built")
def test_the_kernel_equals_the_typed_decoder_without_access_out_of_bounds() -> None:
    assert row_kernel.fuzz_row_kernel(60, seed=1, rounds=120).startswith("row kernel: ")


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=str)
@pytest.mark.usefixtures("built")
def test_usual_rows_are_read(codec: Codec) -> None:
    assert read({"a": 1.5, "ab": 2, "carrier": "AA"}, codec) == [1.5, 2.0, 0.0]
    assert read({"carrier": "été", "ab": True, "a": -3}, codec) == [-3.0, 1.0, 1.0]
    assert read([0.1, 2**53 - 1, "AA"], codec) == [0.1, 2.0**53 - 1, 0.0]
    np.testing.assert_array_equal(read({"a": None}, codec), [np.nan] * 3)


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=str)
@pytest.mark.parametrize(
    "row",
    [
        {"ab": 1}, {"a": 1, "b": 2}, {"a": 1, "carrier": "ZZ"}, {"a": "1"}, {"a": [1]}, {"a": {}},
        {"a": 1, "carrier": 1},
        [1, 2], [1, 2, "AA", 3], [], {}, [[1, 2, "AA"]], 7, None,
    ],
)  # fmt: skip
@pytest.mark.usefixtures("built")
def test_everything_else_is_left_to_the_typed_decoder(codec: Codec, row: Any) -> None:
    assert read(row, codec) is None


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b'{"a":1', b'{"a":1,}', b'{"a":1}}', b'{"a":1,"a":1}', b'{"\\u0061":1}', b'{"a":NaN}', b'{"a":01}',
        b'{"a":1.}', b'{"a":.5}', b'{"a":1e}', b'{"a":+1}', b'{"a":-}', b'{"a":1e400}', b'{"a":5e-324}', b'{"a":tru}',
        b'{"a":12345678901234567890}', b'{"a" 1}', b'{a:1}', b'[1,2,"AA"', b'[1 2,"AA"]', b'\xef\xbb\xbf{"a":1}',
        b'{"a":1,"carrier":"\\u0041A"}', b'{"a":1,"carrier":"A\nA"}', b'{"a":1,"carrier":"\xff"}', b'{"a":1}\x00',
    ],
)  # fmt: skip
@pytest.mark.usefixtures("built")
def test_unusual_json_is_left_to_the_typed_decoder(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x81", b"\x81\xa1a", b"\x82\xa1a\x01\xa1a\x01", b"\x81\xa1a\xc1", b"\x81\xa1a\xcb\0\0",
        b"\x81\xa1a\x01\x01",
        b"\x81\xd9", b"\x81\xa1a\xd9\xff", b"\xde\xff\xff", b"\xdf\0\0\0\1\xa1a\1", b"\x81\xdb\0\0\0\1a\1",
        b"\x81\xa1a\xc4\x01\x01", b"\x81\x01\x01", b"\xdc\0", b"\x93\1\2\xd6\0\0\0\0\0",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("built")
def test_unusual_messagepack_is_left_to_the_typed_decoder(data: bytes) -> None:
    assert read(data, MSGPACK) is None


@pytest.mark.parametrize("spaces", [" ", "\n\t", "\r\n  "])
@pytest.mark.usefixtures("built")
def test_white_space_is_skipped(spaces: str) -> None:
    row = '{"a":1.5,"ab":null,"carrier":"AA"}'.translate({ord(c): f"{spaces}{c}{spaces}" for c in ":,{}"})
    np.testing.assert_array_equal(read(row.encode()), [1.5, np.nan, 0.0])


@pytest.mark.usefixtures("built")
def test_unknown_categories_are_missing_if_the_manifest_says_so() -> None:
    for category in ("ZZ", 5, True):
        np.testing.assert_array_equal(read({"a": 1, "carrier": category}, unknown_is_missing=True), [1, np.nan, np.nan])
    assert read({"a": 1, "carrier": "longer"}, unknown_is_missing=True) is None
    assert read({"a": 1, "carrier": "é"}, unknown_is_missing=True) is None


@pytest.mark.parametrize("wrong", [{"omissible": [True]}, {"order": [0, 3]}, {"order": [-1]}, {"categories": {3: {}}}])
@pytest.mark.usefixtures("built")
def test_a_contradictory_schema_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="disagree"):
        kernel_of(**wrong)


def compare_often(place: int, kernel: RowKernel) -> None:
    rng, guarded = random.Random(place), Guarded()
    try:
        for _ in range(200):
            row_kernel.compare_once(rng, guarded, place, kernel)
    finally:
        guarded.release()


@pytest.mark.parametrize("place", range(len(row_kernel.SCHEMAS)))
@pytest.mark.usefixtures("built")
def test_seeded_mistakes_are_found(place: int) -> None:
    features, (columns, _) = row_kernel.schemas()[place], row_kernel.SCHEMAS[place]
    codes = {n: {c: code + 1.0 for code, c in enumerate(f.categories)} for n, f in enumerate(columns) if f.categories}
    order = list(range(len(columns)))
    swapped = RowSchema(features.feature_names[::-1], [True] * len(columns), codes, order, True)
    with pytest.raises(AssertionError):
        compare_often(place, RowKernel(library(), swapped))


@pytest.mark.parametrize("kernels", [True, False])
def test_features_read_the_same_rows_with_and_without_kernels(kernels: bool) -> None:
    before = kernels_in_use()
    use_kernels(kernels)
    try:
        features = row_kernel.made(0)
    finally:
        use_kernels(before)
    rows = [msgpack.packb([float(n)] * 9) for n in range(5)] + [msgpack.packb([float("inf")] * 9), b"\x90"]
    matrix, fits = features.gather(MSGPACK, rows, DEFAULT_LIMITS)
    assert fits.tolist() == [True] * 5 + [False] * 2
    assert isinstance(matrix, np.ndarray)
    assert matrix.tolist() == [[float(n)] * 9 for n in range(5)]
    assert not features.gather(MSGPACK, rows, Limits(features_max=8))[1].any()


@pytest.mark.usefixtures("built")
def test_texts_are_left_to_the_typed_decoder_if_it_allows_fewer_characters() -> None:
    row = [b'{"delay":1,"distance":2,"number":3,"carrier":"AA"}']
    features = row_kernel.schemas()[2]
    assert features.gather(JSON, row, DEFAULT_LIMITS)[1].all()
    assert not features.gather(JSON, row, Limits(string_chars_max=1))[1].any()
