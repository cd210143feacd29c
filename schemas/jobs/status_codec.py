"""Encodes and decodes the status of a job."""

from __future__ import annotations

from inferd.schemas.codecs import DECODE_ERRORS, Codec, Decoders, check_size, decode_error, structural_fault
from inferd.schemas.jobs.job import JobStatus
from inferd.schemas.limits import DEFAULT_LIMITS, Limits

_STATUS = Decoders(JobStatus)


def encode_status(status: JobStatus, codec: Codec) -> bytes:
    """Encode a status, with the fields in wire order."""
    return codec.encode(status)


def decode_status(value: bytes | None, codec: Codec, limits: Limits = DEFAULT_LIMITS) -> JobStatus:
    """Decode a status. Unknown fields are ignored, so that older clients keep working.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid.
    """
    data = check_size(value, limits.result_bytes_max, "job status")
    if fault := structural_fault(data, codec, limits.depth_max):
        raise type(fault)(f"job status: {fault.message}")
    try:
        decoded: JobStatus = _STATUS[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "job status", limits.depth_max) from None
    return decoded
