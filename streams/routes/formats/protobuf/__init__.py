"""Protobuf: values at paths are read with Google's library; the added field is appended under a wider schema."""

from inferd.streams.routes.formats.protobuf.format import PROTOBUF_FORMAT

__all__ = ["PROTOBUF_FORMAT"]
