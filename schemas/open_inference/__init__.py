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
from inferd.schemas.open_inference.request import InferenceRequest, Input, RequestedOutput, decode_request, wire_request
from inferd.schemas.open_inference.response import InferenceResponse, OutputTensor, encode_response

__all__ = [
    "IndexRequest",
    "InferenceRequest",
    "InferenceResponse",
    "Input",
    "Live",
    "ModelMetadata",
    "ModelReady",
    "OutputTensor",
    "ProtocolError",
    "RepositoryModel",
    "RepositoryState",
    "RequestedOutput",
    "ServerMetadata",
    "TensorMetadata",
    "decode_request",
    "encode_response",
    "model_metadata",
    "wire_request",
]
