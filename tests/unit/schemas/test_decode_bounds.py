"""Memory and time of decoding are bounded, whatever sizes a message claims."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from inferd.schemas.codec import decode_manifest, decode_request, decode_result
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.headers import parse_headers
from inferd.schemas.limits import DEFAULT_LIMITS

SIZE = DEFAULT_LIMITS.message_bytes_max - 100


def packed(raw: bytes) -> bytes:
    return b"\x82\xa8model_id\xa1m\xaainput_data" + raw


def text(raw: bytes) -> bytes:
    return b'{"model_id":"m","input_data":' + raw + b"}"


def array(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


# A rejected message may take one copy of the bytes, and for JSON a second one.
HOSTILE: dict[str, tuple[Codec, bytes, str]] = {
    "a million maps": (MSGPACK, packed(array(SIZE) + b"\x80" * SIZE), "too_large"),
    "a million arrays": (MSGPACK, packed(array(SIZE) + b"\x90" * SIZE), "too_large"),
    "a million maps in a row": (MSGPACK, packed(b"\x91" + array(SIZE - 1) + b"\x80" * (SIZE - 1)), "too_large"),
    "a million nils": (MSGPACK, packed(array(SIZE) + b"\xc0" * SIZE), "too_large"),
    "a million levels": (MSGPACK, packed(b"\x91" * SIZE + b"\xc0"), "too_deep"),
    "4G maps": (MSGPACK, packed(array(2**32 - 1) + b"\x80" * SIZE), "malformed"),
    "100 x 10,000 values": (MSGPACK, packed(array(100) + (array(10_000) + b"\x00" * 10_000) * 100), "too_large"),
    "maps behind a bad id": (
        MSGPACK,
        b"\x83\xa2id\xa1/\xa8model_id\xa1m\xaainput_data" + array(SIZE - 10) + b"\x80" * (SIZE - 10),
        "invalid_id",
    ),
    "an unknown field": (
        MSGPACK,
        b"\x83\xa1x" + array(SIZE) + b"\x80" * SIZE + b"\xa8model_id\xa1m\xaainput_data\x90",
        "malformed",
    ),
    "outputs": (
        MSGPACK,
        b"\x83\xa8model_id\xa1m\xaainput_data\x90\xa7outputs" + array(SIZE // 4) + b"\xa3abc" * (SIZE // 4),
        "invalid_value",
    ),
    "deep, then a million nils": (
        MSGPACK,
        packed(b"\x91" * 14 + array(SIZE - 20) + b"\xc0" * (SIZE - 20)),
        "malformed",
    ),
    "a long id": (MSGPACK, packed(b"\x90\xa2id\xdb" + SIZE.to_bytes(4, "big") + b"a" * SIZE), "malformed"),
    "JSON objects": (JSON, text(b"[" + b"{}," * (SIZE // 3 - 1) + b"{}]"), "too_large"),
    "JSON arrays": (JSON, text(b"[" + b"[]," * (SIZE // 3 - 1) + b"[]]"), "too_large"),
    "JSON numbers": (JSON, text(b"[" + b"0," * (SIZE // 2 - 1) + b"0]"), "too_large"),
    "JSON levels": (JSON, text(b"[" * (SIZE // 2) + b"]" * (SIZE // 2)), "too_deep"),
    "JSON never closed": (JSON, b"[" * SIZE, "too_deep"),
    "JSON quotes": (JSON, b'"' * SIZE, "malformed"),
    "JSON escaped quotes": (JSON, b'"\\' * (SIZE // 2), "malformed"),
    "JSON key that never ends": (JSON, b'{"a' + b'\\"' * (SIZE // 2), "malformed"),
    "JSON space behind a key": (JSON, b'{"a"' + b" " * SIZE, "malformed"),
    "JSON digits": (JSON, text(b"[1" + b"0" * (SIZE - 10) + b"]"), "invalid_value"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_decoding_a_hostile_megabyte_allocates_at_most_its_size(name: str) -> None:
    codec, value, code = HOSTILE[name]
    value = value[: DEFAULT_LIMITS.message_bytes_max]
    tracemalloc.start()
    try:
        with pytest.raises(InferenceError) as caught:
            decode_request(value, codec, DEFAULT_LIMITS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == code, caught.value.message
    assert peak < 3.5 * len(value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_rejected_in_time(name: str) -> None:
    codec, value, _ = HOSTILE[name]
    began = time.process_time()
    with pytest.raises(InferenceError):
        decode_request(value[: DEFAULT_LIMITS.message_bytes_max], codec, DEFAULT_LIMITS)
    # Measured: 0.1 to 40 ms; quadratic code anywhere takes minutes.
    assert time.process_time() - began < 1.0


def test_a_full_request_is_decoded() -> None:
    rows = array(10_000) + (b"\xdc\x00\x19" + b"\x01" * 25) * 10_000
    request = decode_request(packed(rows), MSGPACK, DEFAULT_LIMITS)
    assert len(request.input_data.rows) == 10_000  # type: ignore[union-attr]


def test_other_records_are_measured_first() -> None:
    big = b"\x81" + b"\xc0" * 2_000_000
    for decode in (decode_manifest, lambda value: decode_result(value, MSGPACK)):
        with pytest.raises(InferenceError) as caught:
            decode(big)
        assert caught.value.code == "too_large"


def test_headers_are_counted_first() -> None:
    with pytest.raises(InferenceError, match="64 are allowed"):
        parse_headers([("x", b"")] * 100_000, DEFAULT_LIMITS)
