"""Strict MessagePack and JSON, shared by all record families: every byte is checked before it is decoded."""

from inferd.schemas.strict.decoding import (
    DECODE_ERRORS,
    check_size,
    depth_fault,
    known_fault,
    printable,
    refusal,
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
    "depth_fault",
    "header",
    "known_fault",
    "nested_deeper",
    "printable",
    "punctuation",
    "refusal",
    "repeats_key",
    "rows_of_line",
    "structural_fault",
]
