"""Encodes and decodes the status of a job."""

from __future__ import annotations

import msgspec

from inferd.schemas.headers import Encoding
from inferd.schemas.jobs.job import JobStatus
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.strict import (
    DECODE_ERRORS,
    check_size,
    decode_error,
    structural_fault,
)

_DECODE = {"msgpack": msgspec.msgpack.Decoder(JobStatus).decode, "json": msgspec.json.Decoder(JobStatus).decode}


def encode_status(status: JobStatus, encoding: Encoding) -> bytes:
    """Encode a status, with the fields in wire order."""
    return msgspec.msgpack.encode(status) if encoding == "msgpack" else msgspec.json.encode(status)


def decode_status(value: bytes | None, encoding: Encoding, limits: Limits = DEFAULT_LIMITS) -> JobStatus:
    """Decode a status. Unknown fields are ignored, so that older clients keep working.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid.
    """
    data = check_size(value, limits.result_bytes_max, "job status")
    if fault := structural_fault(data, encoding, limits.depth_max):
        raise type(fault)(f"job status: {fault.message}")
    try:
        return _DECODE[encoding](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, encoding, error, "job status", limits.depth_max) from None
