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
    "decode_envelope",
    "decode_input_data",
    "decode_json_envelope",
    "decode_manifest",
    "decode_msgpack_envelope",
    "decode_request",
    "decode_result",
    "encode_alias",
    "encode_manifest",
    "encode_request",
    "encode_result",
    "has_each_key_once",
    "parse_reference",
    "request_identity",
]
