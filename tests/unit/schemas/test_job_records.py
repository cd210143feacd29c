"""Chunks, results of chunks and statuses of jobs: all written versions stay readable, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.schemas.codec import (
    decode_chunk,
    decode_chunk_result,
    decode_job_message,
    decode_outcome,
    decode_status,
    encode_barrier_result,
    encode_cancel,
    encode_chunk,
    encode_chunk_result,
    encode_close,
    encode_open,
    encode_retry,
    encode_rows,
    encode_status,
    encode_submit,
)
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.jobs.job import (
    Barrier,
    BarrierResult,
    Chunk,
    ChunkOutcome,
    ChunkResult,
    JobError,
    JobStatus,
    Missing,
    Source,
)
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import RowError

GOLDEN = Path(__file__).parents[2] / "golden" / "wire" / "jobs.json"
CODECS: tuple[Codec, ...] = (MSGPACK, JSON)
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

INLINE = Chunk(
    job_id="j:1", chunk=0, first_row=0, row_count=2, model_id="m", version=3, digest=DIGEST, partition=1,
    rows=b"\x92\x91\x01\x91\x02",
)  # fmt: skip
REFERRED = Chunk(
    job_id="j:1", chunk=7, first_row=14, row_count=2, model_id="m", version=3, digest=DIGEST, partition=1,
    outputs=("prediction", "raw"), encoding="json", attempt=1, source=Source(12, 2, 4), previous=99,
)  # fmt: skip
WORK: dict[str, Chunk | Barrier] = {
    "chunk": INLINE,
    "referred": REFERRED,
    "barrier": Barrier(job_id="j:1", barrier="17-ff", partition=1),
}
RESULT = ChunkResult(
    "j:1", 7, 14, 1, 3, DIGEST, {"prediction": [0.25, None], "raw": [-1.5, None]},
    [RowError(15, "invalid_value", "row 15, feature 'é' is infinite")],
)  # fmt: skip
ANSWER = BarrierResult("j:1", "17-ff", 3)
STATUS = JobStatus(
    "j:1", "incomplete", "m", 3, DIGEST, 10, 7, 5, 2, 4, 3, 1_000, 1_001, 1_002, 1_003,
    JobError("quota_exceeded", "too many"), Missing(close=True, messages=[(2, 4), (9, 9)], chunks=[(3, 3)]),
    2, {"team": "ops"},
)  # fmt: skip
LEAST = JobStatus("j:1", "queued", "m", 3, DIGEST, 0, 0, 0, 0, 0, 0, 1_000, None, 1_000, None)


def messages(codec: Codec) -> dict[str, bytes]:
    return {
        "open": encode_open("m@champion", outputs=["raw"], row_count=5, chunk_rows=2, deadline_ms=9_999,
                            labels={"team": "é"}, codec=codec),
        "rows": encode_rows(3, [[1.5, None], [2, "JFK"]], codec),
        "close": encode_close(4, codec),
        "submit": encode_submit("m", [{"a": 1.5}], codec=codec),
        "cancel": encode_cancel(codec),
        "retry": encode_retry(codec),
    }  # fmt: skip


def written(codec: Codec) -> dict[str, bytes]:
    """All records in today's encoding."""
    internal = {name: encode_chunk(work) for name, work in WORK.items()} if codec is MSGPACK else {}
    return {
        **messages(codec),
        **internal,
        "chunk_result": encode_chunk_result(RESULT, codec),
        "barrier_result": encode_barrier_result(ANSWER, codec),
        "status": encode_status(STATUS, codec),
        "queued": encode_status(LEAST, codec),
    }


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_golden_bytes(codec: Codec) -> None:
    golden = json.loads(GOLDEN.read_text())[codec.name]
    shown = {name: value.hex() if codec is MSGPACK else value.decode() for name, value in written(codec).items()}
    assert shown == golden


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_written_records_can_be_read(codec: Codec) -> None:
    golden = json.loads(GOLDEN.read_text())[codec.name]
    value = {name: bytes.fromhex(text) if codec is MSGPACK else text.encode() for name, text in golden.items()}
    for name in messages(codec):
        decode_job_message(value[name], codec, DEFAULT_LIMITS)
    assert decode_chunk_result(value["chunk_result"], codec) == RESULT
    assert decode_outcome(value["chunk_result"], codec) == ChunkOutcome("j:1", 7, 14, 1, DIGEST, 2, 1)
    assert decode_outcome(value["barrier_result"], codec) == ANSWER
    assert decode_status(value["status"], codec) == STATUS
    assert decode_status(value["queued"], codec) == LEAST
    if codec is MSGPACK:
        assert {name: decode_chunk(value[name]) for name in WORK} == WORK


def test_absent_fields_are_omitted_from_the_encoding() -> None:
    fields = json.loads(encode_chunk_result(RESULT, JSON))
    assert list(fields) == [
        *("job_id", "chunk", "first_row", "attempt", "version", "digest", "predictions", "raw", "errors")
    ]
    status = json.loads(encode_status(LEAST, JSON))
    assert set(status).isdisjoint({"error", "missing", "attempt", "labels"})
    assert status["started_at"] is None


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_user_defined_outputs_are_in_a_separate_map(codec: Codec) -> None:
    own = {"chunk": [[1.5], None], "é:0": ["a", None]}
    result = msgspec.structs.replace(RESULT, outputs=RESULT.outputs | own)
    encoded = encode_chunk_result(result, codec)
    fields = json.loads(encoded) if codec is JSON else msgspec.msgpack.decode(encoded)
    assert (fields["outputs"], fields["chunk"], list(fields)[-1]) == (own, 7, "errors")
    assert decode_chunk_result(encoded, codec) == result
    assert list(decode_chunk_result(encoded, codec).outputs) == ["prediction", "raw", "chunk", "é:0"]
    two = msgspec.structs.replace(RESULT, outputs=RESULT.outputs | {"a": [1, 2], "b": [1, 2]})
    same_name = encode_chunk_result(two, codec)
    with pytest.raises(InferenceError, match="appears twice"):
        decode_chunk_result(same_name.replace(b'"b"', b'"a"').replace(b"\xa1b\x92\x01", b"\xa1a\x92\x01"), codec)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("outputs", [{"a": [1]}, {"a": 1}, ["a"], None, {"a": [1, 2, 3]}])
def test_contradictory_user_outputs_are_rejected(outputs: Any, codec: Codec) -> None:
    module: Any = msgspec.msgpack if codec is MSGPACK else msgspec.json
    fields = module.decode(encode_chunk_result(RESULT, codec))
    with pytest.raises(InferenceError):
        decode_chunk_result(module.encode(fields | {"outputs": outputs}), codec)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_fields_of_later_versions_are_ignored(codec: Codec) -> None:
    module: Any = msgspec.msgpack if codec is MSGPACK else msgspec.json
    result = module.decode(encode_chunk_result(RESULT, codec)) | {"new": 1}
    assert decode_chunk_result(module.encode(result), codec) == RESULT
    assert decode_outcome(module.encode(result), codec) == ChunkOutcome("j:1", 7, 14, 1, DIGEST, 2, 1)
    status = module.decode(encode_status(STATUS, codec)) | {"new": [1]}
    assert decode_status(module.encode(status), codec) == STATUS


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize(
    "change",
    [
        {"predictions": None}, {"predictions": [1]}, {"raw": [1]}, {"errors": None}, {"chunk": -1}, {"job_id": 1},
        {"errors": [{"row": 13, "code": "x", "message": ""}]}, {"errors": [{"row": 16, "code": "x", "message": ""}]},
        {"errors": [{"row": 15, "code": "x", "message": ""}] * 2}, {"errors": [{"row": 15}]}, {"first_row": "0"},
    ],
)  # fmt: skip
def test_contradictory_results_are_rejected(change: dict[str, Any], codec: Codec) -> None:
    module: Any = msgspec.msgpack if codec is MSGPACK else msgspec.json
    fields = module.decode(encode_chunk_result(RESULT, codec))
    with pytest.raises(InferenceError):
        decode_chunk_result(module.encode(fields | change), codec)
    for name in ("predictions", "errors", "digest"):
        lacking = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(InferenceError):
            decode_chunk_result(module.encode(lacking), codec)
        with pytest.raises(InferenceError):
            decode_outcome(module.encode(lacking), codec)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": None}, {"source": Source(1, 0, 2)}, {"chunk": -1}, {"version": -1}, {"outputs": ("raw",)},
        {"rows": None, "source": Source(1, 0, 3)}, {"rows": None, "source": Source(1, -1, 1)},
    ],
)  # fmt: skip
def test_contradictory_chunks_are_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(InferenceError):
        decode_chunk(encode_chunk(msgspec.structs.replace(INLINE, **change)))


def test_truncated_bytes_are_rejected_at_every_length() -> None:
    for codec in CODECS:
        for name, value in written(codec).items():
            read: Any = {
                **dict.fromkeys(WORK, lambda data, _: decode_chunk(data)),
                **dict.fromkeys(("chunk_result",), decode_chunk_result),
                **dict.fromkeys(("barrier_result",), decode_outcome),
                **dict.fromkeys(("status", "queued"), decode_status),
            }.get(name, lambda data, codec: decode_job_message(data, codec, DEFAULT_LIMITS))
            for end in range(0, len(value), 1 + len(value) // 60):
                with pytest.raises(InferenceError):
                    read(value[:end], codec)


def test_repeated_keys_are_rejected() -> None:
    value = encode_chunk(INLINE)
    with pytest.raises(InferenceError, match="appears twice"):
        decode_chunk(b"\xde\x00\x0b" + value[3:] + b"\xa5chunk\x01")
    result = encode_chunk_result(RESULT, JSON)
    with pytest.raises(InferenceError, match="appears twice"):
        decode_chunk_result(result[:-1] + b',"chunk":7}', JSON)
    with pytest.raises(InferenceError, match="appears twice"):
        decode_status(encode_status(LEAST, JSON)[:-1] + b',"failed":7}', JSON)
