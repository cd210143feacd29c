"""Bytes <-> records, in both encodings, strictly: everything that encodes or decodes, under one roof."""

from __future__ import annotations

from schemas.envelope import (
    Envelope,
    check_envelope,
    check_outputs,
    decode_envelope,
    decode_json_envelope,
    decode_msgpack_envelope,
    has_each_key_once,
    parse_reference,
)
from schemas.input_data import decode_input_data
from schemas.job_chunk_codec import (
    decode_chunk,
    decode_chunk_result,
    decode_outcome,
    encode_barrier_result,
    encode_chunk,
    encode_chunk_result,
)
from schemas.job_codec import (
    decode_job_message,
    encode_cancel,
    encode_close,
    encode_open,
    encode_retry,
    encode_rows,
    encode_submit,
)
from schemas.job_status_codec import decode_status, encode_status
from schemas.manifest_checks import check_alias, check_manifest, check_manifest_key
from schemas.model_codec import decode_alias, decode_manifest, encode_alias, encode_manifest
from schemas.request_codec import UNREADABLE, decode_request, encode_request, request_identity
from schemas.result_codec import decode_result, encode_result
from schemas.strict import DECODE_ERRORS

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
