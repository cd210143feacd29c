"""Prediction requests and results: values, validation and codecs."""

from inferd.schemas.requests.client_input import is_row, json_input, plain_scalar, to_list, wire_input
from inferd.schemas.requests.codec import UNREADABLE, decode_request, encode_request, request_identity
from inferd.schemas.requests.envelope import (
    Envelope,
    check_envelope,
    check_outputs,
    decode_envelope,
    decode_msgpack_envelope,
    parse_reference,
)
from inferd.schemas.requests.frames import frame_blocks, frame_items, is_frame
from inferd.schemas.requests.http_body import request_of_body
from inferd.schemas.requests.input_data import decode_input_data
from inferd.schemas.requests.request import (
    DEFAULT_OUTPUTS,
    ID_PATTERN,
    NAME_PATTERN,
    OUTPUTS,
    InputData,
    ListRows,
    ModelReference,
    NamedRows,
    Output,
    PredictionRequest,
    Scalar,
    TensorRows,
    check_job_id,
    default_id,
)
from inferd.schemas.requests.result import Failure, Prediction, Result, RowError
from inferd.schemas.requests.result_codec import decode_result, encode_failure_for, encode_result
from inferd.schemas.requests.tensors import ITEM_BYTES

__all__ = [
    "DEFAULT_OUTPUTS",
    "ID_PATTERN",
    "ITEM_BYTES",
    "NAME_PATTERN",
    "OUTPUTS",
    "UNREADABLE",
    "Envelope",
    "Failure",
    "InputData",
    "ListRows",
    "ModelReference",
    "NamedRows",
    "Output",
    "Prediction",
    "PredictionRequest",
    "Result",
    "RowError",
    "Scalar",
    "TensorRows",
    "check_envelope",
    "check_job_id",
    "check_outputs",
    "decode_envelope",
    "decode_input_data",
    "decode_msgpack_envelope",
    "decode_request",
    "decode_result",
    "default_id",
    "encode_failure_for",
    "encode_request",
    "encode_result",
    "frame_blocks",
    "frame_items",
    "is_frame",
    "is_row",
    "json_input",
    "parse_reference",
    "plain_scalar",
    "request_identity",
    "request_of_body",
    "to_list",
    "wire_input",
]
