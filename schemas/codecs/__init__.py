"""The wire formats, and strict decoding of them."""

from inferd.schemas.codecs.codec import CONTENT_TYPE, HOLE, Codec, Decoders, Layout
from inferd.schemas.codecs.decoding import (
    DECODE_ERRORS,
    NESTING_MAX,
    check_nesting,
    check_size,
    decode_error,
    depth_fault,
    find_fault,
    printable,
    structural_fault,
)
from inferd.schemas.codecs.json import JSON, repeats_key
from inferd.schemas.codecs.msgpack import MSGPACK, array_header, header
from inferd.schemas.codecs.ndjson import BYTE_ORDER_MARK, rows_of_line
from inferd.schemas.codecs.registry import all_codecs, codec_named, codec_of, content_types, register, unregister
from inferd.schemas.codecs.sizes import check_sizes

__all__ = [
    "BYTE_ORDER_MARK",
    "CONTENT_TYPE",
    "DECODE_ERRORS",
    "HOLE",
    "JSON",
    "MSGPACK",
    "NESTING_MAX",
    "Codec",
    "Decoders",
    "Layout",
    "all_codecs",
    "array_header",
    "check_nesting",
    "check_size",
    "check_sizes",
    "codec_named",
    "codec_of",
    "content_types",
    "decode_error",
    "depth_fault",
    "find_fault",
    "header",
    "printable",
    "register",
    "repeats_key",
    "rows_of_line",
    "structural_fault",
    "unregister",
]
