"""Bytes <-> records, in both encodings, strictly: everything that encodes or decodes, under one roof."""

from __future__ import annotations

from inferd.schemas.jobs.chunk_codec import (
    decode_chunk,
    decode_chunk_result,
    decode_outcome,
    encode_barrier_result,
    encode_chunk,
    encode_chunk_result,
)
from inferd.schemas.jobs.codec import (
    decode_job_message,
    encode_cancel,
    encode_close,
    encode_open,
    encode_retry,
    encode_rows,
    encode_submit,
)
from inferd.schemas.jobs.status_codec import decode_status, encode_status
from inferd.schemas.models.codec import (
    decode_alias,
    decode_manifest,
    encode_alias,
    encode_manifest,
)
from inferd.schemas.models.manifest_checks import check_alias, check_manifest, check_manifest_key
from inferd.schemas.requests.codec import (
    UNREADABLE,
    decode_request,
    encode_request,
    request_identity,
)
from inferd.schemas.requests.envelope import (
    Envelope,
    check_envelope,
    check_outputs,
    decode_envelope,
    decode_json_envelope,
    decode_msgpack_envelope,
    has_each_key_once,
    parse_reference,
)
from inferd.schemas.requests.input_data import decode_input_data
from inferd.schemas.requests.result_codec import decode_result, encode_result
from inferd.schemas.strict.decoding import DECODE_ERRORS

__all__ = [
    "DECODE_ERRORS",
    "UNREADABLE",
    "Envelope",
    "check_alias",
    "check_envelope",
    "check_manifest",
    "check_manifest_key",
    "check_outputs",
    "decode_alias",
    "decode_chunk",
    "decode_chunk_result",
    "decode_envelope",
    "decode_input_data",
    "decode_job_message",
    "decode_json_envelope",
    "decode_manifest",
    "decode_msgpack_envelope",
    "decode_outcome",
    "decode_request",
    "decode_result",
    "decode_status",
    "encode_alias",
    "encode_barrier_result",
    "encode_cancel",
    "encode_chunk",
    "encode_chunk_result",
    "encode_close",
    "encode_manifest",
    "encode_open",
    "encode_request",
    "encode_result",
    "encode_retry",
    "encode_rows",
    "encode_status",
    "encode_submit",
    "has_each_key_once",
    "parse_reference",
    "request_identity",
]
