"""Strict decoding of MessagePack and JSON, shared by all kinds of records."""

from inferd.schemas.strict.decoding import (
    DECODE_ERRORS,
    check_size,
    decode_error,
    depth_fault,
    find_fault,
    printable,
    structural_fault,
)
from inferd.schemas.strict.json import punctuation, repeats_key
from inferd.schemas.strict.msgpack import header
from inferd.schemas.strict.ndjson import BYTE_ORDER_MARK, rows_of_line
from inferd.schemas.strict.nesting import NESTING_MAX, check_nesting, nested_deeper

__all__ = [
    "BYTE_ORDER_MARK",
    "DECODE_ERRORS",
    "NESTING_MAX",
    "check_nesting",
    "check_size",
    "decode_error",
    "depth_fault",
    "find_fault",
    "header",
    "nested_deeper",
    "printable",
    "punctuation",
    "repeats_key",
    "rows_of_line",
    "structural_fault",
]
