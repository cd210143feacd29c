"""CloudEvents 1.0 around requests and results, in binary mode (attributes in headers) and structured mode (JSON).

Source: https://github.com/cloudevents/spec: `spec.md`, `formats/json-format.md`, `bindings/kafka-protocol-binding.md`.
"""

from inferd.schemas.cloud_events.attributes import (
    ERROR_TYPE,
    PREDICTION_TYPE,
    REQUIRED,
    SPEC_VERSION,
    check_attributes,
    is_event,
)
from inferd.schemas.cloud_events.binary import attributes_of_headers, headers_of_attributes
from inferd.schemas.cloud_events.result import Place, result_attributes, rfc3339, source_of
from inferd.schemas.cloud_events.structured import StructuredEvent, decode_event, encode_event

__all__ = [
    "ERROR_TYPE",
    "PREDICTION_TYPE",
    "REQUIRED",
    "SPEC_VERSION",
    "Place",
    "StructuredEvent",
    "attributes_of_headers",
    "check_attributes",
    "decode_event",
    "encode_event",
    "headers_of_attributes",
    "is_event",
    "result_attributes",
    "rfc3339",
    "source_of",
]
