"""Avro: values at paths are decoded, the rest is skipped; the added field is appended under a wider schema."""

from inferd.streams.routes.formats.avro.format import AVRO_FORMAT

__all__ = ["AVRO_FORMAT"]
