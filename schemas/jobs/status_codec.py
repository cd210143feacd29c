"""The status of a job to bytes and back."""

from __future__ import annotations

import msgspec

from inferd.schemas.headers import Encoding
from inferd.schemas.jobs.job import JobStatus
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.strict import (
    DECODE_ERRORS,
    check_size,
    refusal,
    structural_fault,
)

_DECODE = {"msgpack": msgspec.msgpack.Decoder(JobStatus).decode, "json": msgspec.json.Decoder(JobStatus).decode}


def encode_status(status: JobStatus, encoding: Encoding) -> bytes:
    """The bytes of a status, with the fields in the wire's order."""
    return msgspec.msgpack.encode(status) if encoding == "msgpack" else msgspec.json.encode(status)


def decode_status(value: bytes | None, encoding: Encoding, limits: Limits = DEFAULT_LIMITS) -> JobStatus:
    """The status in `value`; fields that are not known here are let through, so that older clients go on working.

    `TooLargeError`, `MalformedError` or `TooDeepError` where it is none.
    """
    data = check_size(value, limits.result_bytes_max, "job status")
    if fault := structural_fault(data, encoding, limits.depth_max):
        raise type(fault)(f"job status: {fault.message}")
    try:
        return _DECODE[encoding](data)
    except DECODE_ERRORS as error:
        raise refusal(data, encoding, error, "job status", limits.depth_max) from None
