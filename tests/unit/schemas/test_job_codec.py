"""Messages of jobs: every field, every error, and splitting rows without decoding them."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.codec import (
    decode_job_message,
    encode_cancel,
    encode_close,
    encode_open,
    encode_retry,
    encode_rows,
    encode_submit,
)
from inferd.schemas.codecs import (
    JSON,
    MSGPACK,
    Codec,
    array_header,
)
from inferd.schemas.codecs.msgpack import header
from inferd.schemas.errors import InferenceError, InvalidIdError, InvalidValueError
from inferd.schemas.jobs.codec import rows_of
from inferd.schemas.jobs.job import (
    CancelJob,
    CloseJob,
    JobRows,
    OpenJob,
    RetryJob,
    SubmitJob,
    chunk_key,
    parse_job_key,
)
from inferd.schemas.jobs.rows import hashed_row_batch, row_batch
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests.request import ModelReference
from tests.unit.schemas.mutation import mutated

CODECS: tuple[Codec, ...] = (MSGPACK, JSON)
SMALL = Limits(job_message_rows_max=5, job_messages_max=10, job_labels_max=2)


def decode(value: bytes, codec: Codec = MSGPACK, limits: Limits = DEFAULT_LIMITS) -> Any:
    return decode_job_message(value, codec, limits)


def unpacked(data: bytes, codec: Codec) -> Any:
    return msgspec.msgpack.decode(data) if codec is MSGPACK else msgspec.json.decode(data)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_every_field_arrives(codec: Codec) -> None:
    value = encode_open(
        "m@champion", outputs=["raw", "leaves"], row_count=5, chunk_rows=2, deadline_ms=7, labels={"a": "é"},
        codec=codec,
    )  # fmt: skip
    reference, outputs = ModelReference("m", alias="champion"), ("prediction", "raw", "leaves")
    assert decode(value, codec) == OpenJob(reference, outputs, 5, 2, 7, {"a": "é"}, codec.name)
    assert decode(encode_open("m", codec=codec), codec) == OpenJob(ModelReference("m"), encoding=codec.name)
    assert decode(encode_close(3, codec), codec) == CloseJob(3)
    assert decode(encode_cancel(codec), codec) == CancelJob()
    assert decode(encode_retry(codec), codec) == RetryJob()
    submitted = decode(encode_submit("m:2", [[1, 2.5]], chunk_rows=9, codec=codec), codec)
    assert isinstance(submitted, SubmitJob)
    assert submitted.open == OpenJob(ModelReference("m", 2), chunk_rows=9, encoding=codec.name)
    assert unpacked(submitted.batch.cut(0, 1), codec) == [[1, 2.5]]
    assert isinstance(decode(encode_rows(3, [], codec), codec), JobRows)


values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**31), 2**31), st.none(), st.booleans(),
    st.text(max_size=5),
)  # fmt: skip
rows = st.one_of(
    st.lists(st.lists(values, max_size=4), max_size=12),
    st.integers(0, 20).flatmap(
        lambda n: st.lists(st.lists(st.floats(-9, 9), min_size=n, max_size=n), min_size=1, max_size=9)
    ),
    st.lists(st.dictionaries(st.text(max_size=4), values, max_size=4), max_size=8),
)


@given(st.sampled_from(CODECS), rows, st.data())
def test_rows_are_split_at_their_ends(codec: Codec, given_rows: list[Any], data: st.DataObject) -> None:
    raw = (msgspec.msgpack if codec is MSGPACK else msgspec.json).encode(given_rows)
    batch = row_batch(raw, codec, DEFAULT_LIMITS)
    start = data.draw(st.integers(0, len(given_rows)))
    stop = data.draw(st.integers(start, len(given_rows)))
    assert batch.count == len(given_rows)
    assert unpacked(batch.cut(start, stop), codec) == given_rows[start:stop]
    assert [unpacked(row, codec) for row in batch.rows()] == given_rows
    places = data.draw(st.lists(st.integers(0, max(0, len(given_rows) - 1)), max_size=3)) if given_rows else []
    assert unpacked(batch.pick(places), codec) == [given_rows[place] for place in places]
    hashed = hashed_row_batch(raw, codec, DEFAULT_LIMITS)
    assert hashed.digest
    assert hashed_row_batch(batch.cut(0, batch.count), codec, DEFAULT_LIMITS) == hashed


@given(st.integers(0, 20), st.integers(1, 9), st.data())
def test_rows_have_a_fixed_stride_only_if_all_values_are_float64(
    features: int, count: int, data: st.DataObject
) -> None:
    body = b"".join(msgpack.packb([float(i) for i in range(features)]) for _ in range(count))
    mutant = bytearray(body)
    if data.draw(st.booleans()):
        mutant[data.draw(st.integers(0, len(mutant) - 1))] = data.draw(st.integers(0, 255))
    try:
        stride = MSGPACK.row_stride(array_header(count) + bytes(mutant))
    except InferenceError:
        return
    if stride:
        lengths = {len(mutant[at : at + stride]) for at in range(0, len(mutant), stride)}
        assert lengths == {len(body) // count}
        for at in range(0, len(mutant), stride):
            row = msgspec.msgpack.decode(bytes(mutant[at : at + stride]))
            assert all(type(value) is float for value in row)
    elif bytes(mutant) == body:
        assert features > 8 * count


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_a_tensor_is_cut_by_its_rows(codec: Codec) -> None:
    matrix = np.arange(12, dtype="<f4").reshape(4, 3)
    batch = decode(encode_rows(0, matrix, codec), codec).batch
    assert (batch.count, batch.codec, batch.tensor) == (4, MSGPACK, ("<f4", 3))
    for cut, expected in ((batch.cut(1, 3), matrix[1:3]), (batch.pick([3, 0]), matrix[[3, 0]])):
        fields = msgspec.msgpack.decode(cut)
        assert fields["shape"] == [2, 3]
        assert fields["data"] == expected.tobytes()


def test_white_space_between_rows_is_not_part_of_them() -> None:
    batch = decode(b'{"type":"rows","seq":0,"input_batch": [ [1 ] ,\n[2],  {"a":3}] }', JSON).batch
    assert unpacked(batch.cut(0, 3), JSON) == [[1], [2], {"a": 3}]
    assert unpacked(batch.cut(1, 2), JSON) == [[2]]


BAD: list[tuple[Any, str]] = [
    ({"type": "rows", "seq": 0}, "malformed"),
    ({"type": "rows", "seq": 0, "input_batch": [[1]], "x": 1}, "malformed"),
    ({"type": "rows", "seq": "0", "input_batch": [[1]]}, "malformed"),
    ({"type": "rows", "seq": 0.5, "input_batch": [[1]]}, "malformed"),
    ({"type": "rows", "seq": -1, "input_batch": [[1]]}, "invalid_value"),
    ({"type": "rows", "seq": 10, "input_batch": [[1]]}, "too_large"),
    ({"type": "rows", "seq": 0, "input_batch": [1, 2]}, "malformed"),
    ({"type": "rows", "seq": 0, "input_batch": {"a": 1}}, "malformed"),
    ({"type": "rows", "seq": 0, "input_batch": "x"}, "malformed"),
    ({"type": "rows", "seq": 0, "input_batch": None}, "malformed"),
    ({"type": "rows", "seq": 0, "input_batch": [[1]] * 6}, "too_large"),
    ({"type": "close"}, "malformed"),
    ({"type": "close", "message_count": 11}, "too_large"),
    ({"type": "close", "message_count": None}, "malformed"),
    ({"type": "cancel", "message_count": 1}, "malformed"),
    ({"type": "stop"}, "malformed"),
    ({"type": 1}, "malformed"),
    ({"model_id": "m"}, "malformed"),
    ([], "malformed"),
    ("open", "malformed"),
    ({"type": "open"}, "malformed"),
    ({"type": "open", "model_id": "../m"}, "invalid_id"),
    ({"type": "open", "model_id": "m", "outputs": []}, "invalid_value"),
    ({"type": "open", "model_id": "m", "outputs": ["raw", "raw"]}, "invalid_value"),
    ({"type": "open", "model_id": "m", "outputs": [""]}, "invalid_value"),
    ({"type": "open", "model_id": "m", "outputs": [str(n) for n in range(101)]}, "invalid_value"),
    ({"type": "open", "model_id": "m", "outputs": ["raw"] * 9}, "invalid_value"),
    ({"type": "open", "model_id": "m", "row_count": -1}, "invalid_value"),
    ({"type": "open", "model_id": "m", "chunk_rows": 0}, "invalid_value"),
    ({"type": "open", "model_id": "m", "deadline": 10**15}, "invalid_value"),
    ({"type": "open", "model_id": "m", "deadline": None}, "malformed"),
    ({"type": "open", "model_id": "m", "labels": {"a": 1}}, "malformed"),
    ({"type": "open", "model_id": "m", "labels": {"a": "", "b": "", "c": ""}}, "invalid_value"),
    ({"type": "open", "model_id": "m", "labels": {"a": "é" * 9_000}}, "invalid_value"),
    ({"type": "submit", "model_id": "m"}, "malformed"),
    ({"type": "submit", "model_id": "m", "input_batch": 3}, "malformed"),
]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize(("fields", "code"), BAD)
def test_each_fault_has_its_code(fields: Any, code: str, codec: Codec) -> None:
    value = msgspec.msgpack.encode(fields) if codec is MSGPACK else msgspec.json.encode(fields)
    with pytest.raises(InferenceError) as refused:
        decode(value, codec, SMALL)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"rows","seq":0,"seq":0,"input_batch":[[1]]}',
        b'{"type":"rows","type":"rows","seq":0,"input_batch":[[1]]}',
        b'{"type":"rows","seq":0,"input_batch":[[2]],"input_batch":[[1]]}',
        b'{"type":"rows","seq":0,"input_batch":[[1]],"input_batch":[[1]]}',
        b'{"type":"rows","\\u0073eq":0,"seq":0,"input_batch":[[1]]}',
        b'{"type":"open","model_id":"m","labels":{"a":"b","a":"c"}}',
    ],
)
def test_a_repeated_key_is_rejected_in_json(value: bytes) -> None:
    with pytest.raises(InferenceError, match="appears twice"):
        decode(value, JSON)


@pytest.mark.parametrize(
    "pairs",
    [
        [("type", "close"), ("message_count", 1), ("message_count", 1)],
        [("type", "close"), ("type", "close"), ("message_count", 1)],
        [("type", "rows"), ("seq", 1), ("input_batch", [[1]]), ("input_batch", [[1]])],
    ],
)
def test_a_repeated_key_is_rejected_in_msgpack(pairs: list[tuple[str, Any]]) -> None:
    body = b"".join(msgpack.packb(key) + msgpack.packb(value) for key, value in pairs)
    with pytest.raises(InferenceError, match="appears twice"):
        decode(bytes([0x80 | len(pairs)]) + body)


def test_a_repeated_label_is_rejected() -> None:
    labels = b"\x82\xa1a\xa1b\xa1a\xa1c"
    value = b"\x83" + b"".join(map(msgpack.packb, ["type", "open", "model_id", "m", "labels"])) + labels
    with pytest.raises(InferenceError, match="appears twice"):
        decode(value)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_bytes_that_are_not_a_message_raise_a_typed_error(codec: Codec) -> None:
    for value in (
        None,
        b"",
        b"\xc1",
        b"\x81",
        b"{",
        b"\xff\xfe",
        b"[" * 2_000,
        b"\x91" * 2_000,
        b"\xdd\xff\xff\xff\xff",
    ):
        with pytest.raises(InferenceError):
            decode_job_message(value, codec, DEFAULT_LIMITS)
    with pytest.raises(InferenceError, match="bytes; at most"):
        decode(b" " * 2_000_000, codec)


def test_claimed_rows_are_rejected_before_allocation() -> None:
    value = b"\x83" + b"".join(map(msgpack.packb, ["type", "rows", "seq", 0, "input_batch"])) + b"\xdd\xff\xff\xff\xff"
    with pytest.raises(InferenceError):
        decode(value)


def test_mutated_messages_are_decoded_or_rejected_with_a_typed_error() -> None:
    random = Random(7)
    read = 0
    for _ in range(4_000):
        codec: Codec = random.choice(CODECS)
        batch: list[Any] = random.choice([[[1.5, 2.5]] * 3, [[1, None, "x"]], [{"a": 1.0}, {"a": 2.0}], []])
        message = random.choice(
            [
                encode_rows(random.randint(0, 9), batch, codec),
                encode_submit("m", batch, labels={"a": "b"}, codec=codec),
                encode_open("m", outputs=["raw"], row_count=3, codec=codec),
                encode_close(2, codec),
            ]
        )
        try:
            decoded = decode(mutated(random, message, codec), codec)
        except InferenceError:
            continue
        read += 1
        if isinstance(decoded, JobRows | SubmitJob):
            again = row_batch(decoded.batch.cut(0, decoded.batch.count), decoded.batch.codec, DEFAULT_LIMITS)
            assert again.count == decoded.batch.count
            assert len(decoded.batch.rows() if decoded.batch.tensor is None else []) in (0, decoded.batch.count)
    assert read > 500


def test_a_producer_gets_an_error_for_an_invalid_message() -> None:
    with pytest.raises(InvalidValueError, match="a single row"):
        encode_rows(0, [1.0, 2.0])
    with pytest.raises(InvalidValueError, match="a single row"):
        encode_rows(0, {"a": 1.0})
    with pytest.raises(InvalidValueError, match="infinity"):
        encode_rows(0, [[math.inf]], JSON)
    with pytest.raises(InvalidIdError):
        encode_open("../m")


def test_rows_of_a_source() -> None:
    assert rows_of(encode_submit("m", [[1], [2]]), MSGPACK, DEFAULT_LIMITS).count == 2
    with pytest.raises(InvalidValueError, match="has no rows"):
        rows_of(encode_close(2), MSGPACK, DEFAULT_LIMITS)


def test_the_key_is_the_job_id() -> None:
    assert parse_job_key(b"a:b-1") == "a:b-1"
    assert chunk_key("a:b-1", 7) == b"a:b-1/7"
    for key in (None, b"", b"../x", b"x" * 65, b"\xff"):
        with pytest.raises(InvalidIdError):
            parse_job_key(key)


def test_equal_rows_have_the_same_digest_and_others_not() -> None:
    one, same, other = (decode(encode_rows(seq, [[value]])).batch for seq, value in ((0, 1.0), (5, 1.0), (0, 2.0)))
    assert one.digest == same.digest != other.digest
    assert header(one.cut(0, 1))[0] == "array"


UNREADABLE_OPTIONS: list[dict[str, Any]] = [
    {"chunk_rows": 0}, {"row_count": -1}, {"deadline_ms": -5}, {"labels": {str(n): "" for n in range(1_001)}},
    {"labels": {"note": "x" * 20_000}}, {"chunk_rows": 2.5},
]  # fmt: skip


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
@pytest.mark.parametrize("options", UNREADABLE_OPTIONS)
def test_messages_that_no_worker_could_decode_are_not_encoded(options: dict[str, Any], codec: Codec) -> None:
    with pytest.raises(InferenceError):
        encode_open("m", **options, codec=codec)
    with pytest.raises(InferenceError):
        encode_close(16_385, codec)
