"""CloudEvents 1.0 around requests and results, in binary mode (attributes in headers) and structured mode (JSON).

Source: https://github.com/cloudevents/spec: `spec.md`, `formats/json-format.md`, `bindings/kafka-protocol-binding.md`.
"""

from inferd.schemas.cloud_events.attributes import (
    ERROR_TYPE,
    PREDICTION_TYPE,
    RELATED,
    REQUIRED,
    SPEC_VERSION,
    Attribute,
    check_attributes,
    is_event,
)
from inferd.schemas.cloud_events.binary import attributes_of_headers, headers_of_attributes
from inferd.schemas.cloud_events.result import Place, attributes_of_result, result_attributes, rfc3339, source_of
from inferd.schemas.cloud_events.structured import StructuredEvent, decode_event, encode_event, replace_data

__all__ = [
    "ERROR_TYPE",
    "PREDICTION_TYPE",
    "RELATED",
    "REQUIRED",
    "SPEC_VERSION",
    "Attribute",
    "Place",
    "StructuredEvent",
    "attributes_of_headers",
    "attributes_of_result",
    "check_attributes",
    "decode_event",
    "encode_event",
    "headers_of_attributes",
    "is_event",
    "replace_data",
    "result_attributes",
    "rfc3339",
    "source_of",
]
