"""Encodes chunks and their results, deterministically, and decodes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from inferd.schemas.codecs import (
    DECODE_ERRORS,
    MSGPACK,
    Codec,
    Decoders,
    check_size,
    codec_named,
    decode_error,
    structural_fault,
)
from inferd.schemas.errors import MalformedError
from inferd.schemas.jobs.job import (
    Barrier,
    BarrierResult,
    Chunk,
    ChunkOutcome,
    ChunkResult,
)
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import OUTPUTS, OWN_OUTPUTS, Output, RowError, output_fields

PREDICTIONS = "predictions"
"""Wire name of the output `prediction` in the result of a chunk."""

_Natural = Annotated[int, msgspec.Meta(ge=0)]
_decode_work = MSGPACK.decoder(Chunk | Barrier)


class _ResultHeader(msgspec.Struct):
    """The first fields of every chunk result. Unknown fields are ignored, for forward compatibility."""

    job_id: str
    chunk: _Natural
    first_row: _Natural
    attempt: _Natural
    version: _Natural
    digest: str


class _Outcome(_ResultHeader):
    predictions: msgspec.Raw
    errors: msgspec.Raw


class _BarrierField(msgspec.Struct):
    """Distinguishes the result of a barrier from that of a chunk."""

    barrier: str | None = None


_FIELDS = Decoders(dict[str, msgspec.Raw])
_RESULT_HEADER = Decoders(_ResultHeader)
_OUTCOME = Decoders(_Outcome)
_BARRIER = Decoders(BarrierResult)
_BARRIER_FIELD = Decoders(_BarrierField)
_VALUES = Decoders(list[Any])
_OWN_LISTS = Decoders(dict[str, list[Any]])
_ERRORS = Decoders(list[RowError])
_RAWS = Decoders(list[msgspec.Raw])


def encode_chunk(chunk: Chunk | Barrier) -> bytes:
    """Encode a record of `job-chunks`, always in MessagePack."""
    return MSGPACK.encode(chunk)


def decode_chunk(value: bytes | None, limits: Limits = DEFAULT_LIMITS) -> Chunk | Barrier:
    """Decode a record of `job-chunks`; `MalformedError`, `TooLargeError` or `TooDeepError` if it is invalid."""
    data = check_size(value, limits.message_bytes_max, "chunk")
    if fault := structural_fault(data, MSGPACK, limits.depth_max):
        raise type(fault)(f"chunk: {fault.message}")
    try:
        work: Chunk | Barrier = _decode_work(data)
    except DECODE_ERRORS as error:
        raise decode_error(data, MSGPACK, error, "chunk", limits.depth_max) from None
    if isinstance(work, Chunk):
        if problem := _problem(work):
            raise MalformedError(f"chunk {work.chunk} of job {work.job_id[:80]!r}: {problem}")
        codec_named(work.encoding), codec_named(work.rows_encoding)
    return work


def _problem(chunk: Chunk) -> str | None:
    if (chunk.rows is None) == (chunk.source is None):
        return "it must have exactly one of rows and source"
    if min(chunk.chunk, chunk.first_row, chunk.row_count, chunk.attempt, chunk.partition, chunk.version) < 0:
        return "a number is negative"
    source = chunk.source
    if source is not None and not 0 <= source.start <= source.stop == source.start + chunk.row_count:
        return "the source has another number of rows"
    return None if chunk.outputs[:1] == ("prediction",) else "prediction is not the first output"


def encode_chunk_result(result: ChunkResult, codec: Codec) -> bytes:
    """Encode a chunk's result, with the fields in wire order. Equal results give equal bytes.

    `TypeError`, `ValueError` or `OverflowError` for a value that the codec cannot represent.
    """
    lists = {PREDICTIONS if name == "prediction" else name: it for name, it in output_fields(result.outputs).items()}
    fields = {
        "job_id": result.job_id,
        "chunk": result.chunk,
        "first_row": result.first_row,
        "attempt": result.attempt,
        "version": result.version,
        "digest": result.digest,
        **lists,
        "errors": result.errors,
    }
    return codec.encode(fields)


def encode_barrier_result(result: BarrierResult, codec: Codec = MSGPACK) -> bytes:
    """Encode the reply to a barrier for `job-results`."""
    return codec.encode(result)


def decode_chunk_result(value: bytes | None, codec: Codec, limits: Limits = DEFAULT_LIMITS) -> ChunkResult:
    """Decode the result of a chunk; unknown fields are ignored.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid: `predictions` and the other outputs must be
    lists of equal length, and errors must name rows of the chunk, in row order.
    """
    data = check_size(value, limits.result_bytes_max, "chunk result")
    try:
        fields: dict[str, msgspec.Raw] = _FIELDS[codec](data)
        head: _ResultHeader = _RESULT_HEADER[codec](data)
        outputs = {output: _values(fields, name, codec) for name, output in _LISTS.items() if name in fields}
        own = _own_values(fields, codec)
        errors: list[RowError] = _ERRORS[codec](fields.get("errors", b""))
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "chunk result", limits.depth_max) from None
    if codec.repeats_key(data, len(fields), ()):
        raise decode_error(data, codec, ValueError("a key appears twice"), "chunk result", limits.depth_max)
    # The order of the bytes is the requested order.
    ordered = {output: outputs[output] for name in fields if (output := _LISTS.get(name)) is not None}
    result = ChunkResult(outputs=ordered | own, errors=errors, **msgspec.structs.asdict(head))
    if problem := _result_problem(result):
        raise MalformedError(f"chunk result: {problem}")
    return result


_LISTS: dict[str, Output] = {PREDICTIONS if output == "prediction" else output: output for output in OUTPUTS}


def _values(fields: Mapping[str, msgspec.Raw], name: str, codec: Codec) -> list[Any]:
    values: list[Any] = _VALUES[codec](fields[name])
    return values


def _own_values(fields: Mapping[str, msgspec.Raw], codec: Codec) -> dict[Output, list[Any]]:
    """The lists of the model's own outputs."""
    if (raw := fields.get(OWN_OUTPUTS)) is None:
        return {}
    own: dict[Output, list[Any]] = _OWN_LISTS[codec](raw)
    if codec.repeats_key(bytes(raw), len(own), ()):
        raise ValueError(f"field {OWN_OUTPUTS}: a key appears twice")
    return own


def _result_problem(result: ChunkResult) -> str | None:
    if "prediction" not in result.outputs:
        return f"the field {PREDICTIONS} is missing"
    lengths = {output: len(values) for output, values in result.outputs.items()}
    if len(set(lengths.values())) > 1:
        return f"the lists differ in length ({lengths})"
    rows = [error.row for error in result.errors]
    if rows and not (result.first_row <= rows[0] and rows[-1] < result.first_row + lengths["prediction"]):
        return "an error names a row of another chunk"
    return None if rows == sorted(set(rows)) else "the errors are not in row order, one per row"


def decode_outcome(value: bytes | None, codec: Codec, limits: Limits = DEFAULT_LIMITS) -> ChunkOutcome | BarrierResult:
    """Decode what the owner of a job needs of a record of `job-results`; predictions are counted, not decoded.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid.
    """
    data = check_size(value, limits.result_bytes_max, "job result")
    try:
        if _BARRIER_FIELD[codec](data).barrier is not None:
            barrier: BarrierResult = _BARRIER[codec](data)
            return barrier
        fields: _Outcome = _OUTCOME[codec](data)
        rows, failed = _length(fields.predictions, codec), _length(fields.errors, codec)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "job result", limits.depth_max) from None
    if failed > rows:
        raise MalformedError(f"job result: {failed} errors for {rows} rows")
    return ChunkOutcome(fields.job_id, fields.chunk, fields.first_row, fields.attempt, fields.digest, rows, failed)


def _length(raw: msgspec.Raw, codec: Codec) -> int:
    claimed = codec.claimed_length(bytes(raw))
    return len(_RAWS[codec](raw)) if claimed is None else claimed
