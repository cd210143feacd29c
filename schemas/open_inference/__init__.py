"""The Open Inference Protocol V2: conversion of its requests to inferd's, and of inferd's results to its responses.

Source: https://github.com/kserve/open-inference-protocol, and for binary tensors the Triton Inference Server's
`protocol/extension_binary_data.md`.
"""

from inferd.schemas.open_inference.metadata import (
    IndexRequest,
    Live,
    ModelMetadata,
    ModelReady,
    ProtocolError,
    RepositoryModel,
    RepositoryState,
    ServerMetadata,
    TensorMetadata,
    model_metadata,
)
from inferd.schemas.open_inference.record import RecordRequest, decode_record, encode_answer, open_record
from inferd.schemas.open_inference.request import (
    InferenceRequest,
    Input,
    NamedRequest,
    RequestedOutput,
    decode_request,
    model_reference,
    parse_json_length,
    row_values,
    wire_request,
)
from inferd.schemas.open_inference.response import (
    ErrorResponse,
    InferenceResponse,
    OutputTensor,
    encode_error,
    encode_response,
)

__all__ = [
    "ErrorResponse",
    "IndexRequest",
    "InferenceRequest",
    "InferenceResponse",
    "Input",
    "Live",
    "ModelMetadata",
    "ModelReady",
    "NamedRequest",
    "OutputTensor",
    "ProtocolError",
    "RecordRequest",
    "RepositoryModel",
    "RepositoryState",
    "RequestedOutput",
    "ServerMetadata",
    "TensorMetadata",
    "decode_record",
    "decode_request",
    "encode_answer",
    "encode_error",
    "encode_response",
    "model_metadata",
    "model_reference",
    "open_record",
    "parse_json_length",
    "row_values",
    "wire_request",
]
