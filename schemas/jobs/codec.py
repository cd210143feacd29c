"""Decodes the messages of a job, as strictly as requests, and encodes them for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from inferd.schemas.codecs import DECODE_ERRORS, MSGPACK, Codec, Decoders, check_size, decode_error, find_fault
from inferd.schemas.errors import InferenceError, InvalidValueError, TooLargeError
from inferd.schemas.headers import DEADLINE_MS_MAX
from inferd.schemas.jobs.job import (
    CancelJob,
    CloseJob,
    JobMessage,
    JobRows,
    OpenJob,
    RetryJob,
    SubmitJob,
)
from inferd.schemas.jobs.rows import RowBatch, hashed_row_batch
from inferd.schemas.limits import LARGEST_JOB_LIMITS, Limits
from inferd.schemas.requests import (
    DEFAULT_OUTPUTS,
    ModelReference,
    Output,
    OutputNames,
    check_outputs,
    in_result_order,
    parse_reference,
    wire_input,
)

LABELS_BYTES_MAX = 16_384
"""UTF-8 bytes of all names and values of a job's labels, which are part of its state."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=DEADLINE_MS_MAX)]


class _Open(msgspec.Struct, tag_field="type", tag="open", forbid_unknown_fields=True):
    model_id: str
    outputs: OutputNames | UnsetType = UNSET
    row_count: _Count | UnsetType = UNSET
    chunk_rows: _Positive | UnsetType = UNSET
    deadline: _Time | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class _Submit(_Open, tag_field="type", tag="submit", forbid_unknown_fields=True, kw_only=True):
    input_batch: msgspec.Raw


class _Rows(msgspec.Struct, tag_field="type", tag="rows", forbid_unknown_fields=True):
    seq: _Count
    input_batch: msgspec.Raw


class _Close(msgspec.Struct, tag_field="type", tag="close", forbid_unknown_fields=True):
    message_count: _Count


class _Cancel(msgspec.Struct, tag_field="type", tag="cancel", forbid_unknown_fields=True):
    pass


class _Retry(msgspec.Struct, tag_field="type", tag="retry", forbid_unknown_fields=True):
    pass


JOB_MESSAGES: Mapping[str, type[msgspec.Struct]] = {
    "open": _Open,
    "rows": _Rows,
    "close": _Close,
    "submit": _Submit,
    "cancel": _Cancel,
    "retry": _Retry,
}
"""The wire type of each message, by its `type`; `input_batch` is not decoded."""
_MESSAGE = Decoders(_Open | _Submit | _Rows | _Close | _Cancel | _Retry)
_FIELDS = Decoders(dict[str, msgspec.Raw])
_RANGES = ("Expected `int` >=", "Expected `int` <=", "Expected `array` of length", "Integer value out of range")
"""Starts of msgspec's messages for values that have the right type but are out of range."""


def decode_job_message(value: bytes | None, codec: Codec, limits: Limits) -> JobMessage:
    """Decode a message of a job; its rows are counted and can be split into chunks (see `RowBatch`).

    `MalformedError`, `TooLargeError` or `TooDeepError` for bytes that are not a map of a message's fields, each once
    and of its type; `InvalidIdError` for the model_id; `InvalidValueError` for outputs, labels and numbers out of
    range; `TooLargeError` for more rows or messages than allowed; for a tensor the errors of `decode_input_data`.
    Values inside a row are checked when the row is scored, and fail only that row.
    """
    data = check_size(value, limits.message_bytes_max, "job message")
    try:
        fields = _MESSAGE[codec](data)
    except DECODE_ERRORS as error:
        raise _decode_error(data, codec, error, limits) from None
    if _repeats_key(data, codec, fields):
        raise decode_error(data, codec, ValueError("a key appears twice"), "job message", limits.depth_max)
    try:
        return _message(fields, codec, limits)
    except InferenceError as error:
        if fault := find_fault(data, codec, limits.depth_max):
            raise type(fault)(f"job message: {fault.message}") from None
        raise error from None


def _decode_error(data: bytes, codec: Codec, error: Exception, limits: Limits) -> InferenceError:
    rejected = decode_error(data, codec, error, "job message", limits.depth_max)
    if str(error).startswith(_RANGES) and find_fault(data, codec, limits.depth_max) is None:
        return InvalidValueError(rejected.message)
    return rejected


def _repeats_key(data: bytes, codec: Codec, fields: Any) -> bool:
    """Whether a key of the message or of its labels appears twice. Keys of rows are checked when they are scored."""
    keys = 1 + sum(getattr(fields, name) is not UNSET for name in fields.__struct_fields__)
    inner = [raw for raw in (getattr(fields, "input_batch", None),) if raw is not None]
    if (labels := getattr(fields, "labels", UNSET)) is not UNSET:
        inner.append(_FIELDS[codec](data)["labels"])
        if codec.repeats_key(bytes(inner[-1]), len(labels), ()):
            return True
    return codec.repeats_key(data, keys, inner)


def _message(fields: Any, codec: Codec, limits: Limits) -> JobMessage:
    match fields:
        case _Submit():
            return SubmitJob(_open(fields, codec, limits), hashed_row_batch(fields.input_batch, codec, limits))
        case _Open():
            return _open(fields, codec, limits)
        case _Rows():
            _check_number("seq", fields.seq, limits.job_messages_max - 1)
            return JobRows(fields.seq, hashed_row_batch(fields.input_batch, codec, limits))
        case _Close():
            _check_number("message_count", fields.message_count, limits.job_messages_max)
            return CloseJob(fields.message_count)
        case _Cancel():
            return CancelJob()
        case _:
            return RetryJob()


def _open(fields: _Open, codec: Codec, limits: Limits) -> OpenJob:
    outputs = DEFAULT_OUTPUTS if fields.outputs is UNSET else check_outputs(fields.outputs)
    return OpenJob(
        model=parse_reference(fields.model_id),
        outputs=with_prediction(outputs),
        row_count=None if fields.row_count is UNSET else fields.row_count,
        chunk_rows=None if fields.chunk_rows is UNSET else fields.chunk_rows,
        deadline_ms=None if fields.deadline is UNSET else fields.deadline,
        labels={} if fields.labels is UNSET else check_labels(fields.labels, limits),
        encoding=codec.name,
    )


def with_prediction(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """`outputs` with `prediction` first: each row of a job ends as one prediction or one error."""
    return ("prediction", *in_result_order(output for output in outputs if output != "prediction"))


def check_labels(labels: Mapping[str, str], limits: Limits) -> dict[str, str]:
    """Return `labels` if they are within the limits, else raise `InvalidValueError`."""
    if len(labels) > limits.job_labels_max:
        raise InvalidValueError(f"labels: {len(labels)}; at most {limits.job_labels_max} are allowed")
    size = sum(len(text.encode()) for label in labels.items() for text in label)
    if size > LABELS_BYTES_MAX:
        raise InvalidValueError(f"labels: {size} bytes; at most {LABELS_BYTES_MAX} are allowed")
    return dict(labels)


def _check_number(what: str, number: int, number_max: int) -> None:
    if number > number_max:
        raise TooLargeError(f"{what}: {number}; at most {number_max} is allowed: send more rows in each message")


def encode_open(
    model_id: str,
    *,
    outputs: Sequence[Output] | None = None,
    row_count: int | None = None,
    chunk_rows: int | None = None,
    deadline_ms: int | None = None,
    labels: Mapping[str, str] | None = None,
    codec: Codec = MSGPACK,
) -> bytes:
    """Encode a message that opens a job; fields that are None are omitted.

    `InvalidIdError` for the model_id, `InvalidValueError` for the outputs.
    """
    given = _header_fields(model_id, outputs, row_count, chunk_rows, deadline_ms, labels)
    return _encode({"type": "open", **given}, codec)


def encode_submit(
    model_id: str,
    input_batch: Any,
    *,
    outputs: Sequence[Output] | None = None,
    chunk_rows: int | None = None,
    deadline_ms: int | None = None,
    labels: Mapping[str, str] | None = None,
    codec: Codec = MSGPACK,
) -> bytes:
    """Encode a whole job as one message; `input_batch` as for `encode_rows`."""
    given = _header_fields(model_id, outputs, None, chunk_rows, deadline_ms, labels)
    return _encode({"type": "submit", **given, "input_batch": wire_batch(input_batch, codec)}, codec)


def encode_rows(seq: int, input_batch: Any, codec: Codec = MSGPACK) -> bytes:
    """Encode the `rows` message number `seq` of a job: rows, or a two-dimensional array; see `wire_input`.

    `InvalidValueError` for values that cannot be encoded, and for a single row that is not in a list.
    """
    return _encode({"type": "rows", "seq": seq, "input_batch": wire_batch(input_batch, codec)}, codec)


def encode_close(message_count: int, codec: Codec = MSGPACK) -> bytes:
    """Encode the message that states the number of `rows` messages."""
    return _encode({"type": "close", "message_count": message_count}, codec)


def encode_cancel(codec: Codec = MSGPACK) -> bytes:
    """Encode a message that cancels a job."""
    return _encode({"type": "cancel"}, codec)


def encode_retry(codec: Codec = MSGPACK) -> bytes:
    """Encode a message that requests scoring of a job's failed rows again."""
    return _encode({"type": "retry"}, codec)


def wire_batch(input_batch: Any, codec: Codec) -> Any:
    """`input_batch` as rows or a tensor that can be encoded; `InvalidValueError` for anything else."""
    data = wire_input(input_batch, codec)
    tensor = isinstance(data, dict) and isinstance(data.get("shape"), list)
    if not tensor and not (isinstance(data, list) and all(isinstance(row, list | dict) for row in data)):
        raise InvalidValueError("input_batch: a single row; expected rows ([[n, …], …] or [{feature: value}, …])")
    return data


def _header_fields(
    model_id: str,
    outputs: Sequence[Output] | None,
    row_count: int | None,
    chunk_rows: int | None,
    deadline_ms: int | None,
    labels: Mapping[str, str] | None,
) -> dict[str, Any]:
    ModelReference.parse(model_id)
    fields = {
        "model_id": model_id,
        "outputs": None if outputs is None else list(check_outputs(list(outputs))),
        "row_count": row_count,
        "chunk_rows": chunk_rows,
        "deadline": deadline_ms,
        "labels": None if labels is None else dict(labels),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _encode(fields: Mapping[str, Any], codec: Codec) -> bytes:
    try:
        value = codec.encode(fields)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidValueError(f"{fields['type']} cannot be sent as {codec.name}: {error}") from None
    # Rejects a message that no worker would accept.
    decode_job_message(value, codec, LARGEST_JOB_LIMITS)
    return value


def rows_of(value: bytes | None, codec: Codec, limits: Limits) -> RowBatch:
    """Decode the rows of the `rows` or `submit` message that a chunk refers to. Errors as `decode_job_message`, and
    `InvalidValueError` if the message has no rows."""
    message = decode_job_message(value, codec, limits)
    if not isinstance(message, JobRows | SubmitJob):
        raise InvalidValueError("the message that a chunk refers to has no rows")
    return message.batch
