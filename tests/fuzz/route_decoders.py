"""The readers of formats with schemas as targets: records, and the texts of schemas."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
from google.protobuf.message_factory import GetMessageClass

from inferd.schemas.errors import InferenceError
from inferd.schemas.routes import Format, parse_path
from inferd.streams.routes.formats import Pending, RegisteredSchema, format_named
from inferd.streams.routes.formats.avro.schema import parse_avro
from inferd.streams.routes.formats.protobuf.schema import parse_schema
from tests.fuzz.target import Target

ITEM = {"type": "record", "name": "Item", "fields": [
    {"name": "price", "type": ["null", "double"]}, {"name": "more", "type": ["null", "Item"]}]}  # fmt: skip
AVRO = {"type": "record", "name": "Order", "fields": [
    {"name": "id", "type": "long"},
    {"name": "items", "type": {"type": "array", "items": ITEM}},
    {"name": "nothing", "type": {"type": "array", "items": "null"}},
    {"name": "tags", "type": {"type": "map", "values": ["null", "string", "double"]}},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
    {"name": "sum", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "ratio", "type": "float"}]}  # fmt: skip
PROTO = """
syntax = "proto3";
message Order {
  int64 id = 1; repeated Item items = 2; map<string, double> tags = 3; Kind kind = 4;
  message Item { optional double price = 1; Item more = 2; }
  enum Kind { A = 0; B = 1; }
}
"""
PATHS = ("id", "items[1].price", "items[0].more.more.price", "tags.x", "kind")
HEADER = b"\0\0\0\0\1"


@dataclass(frozen=True)
class _Record:
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True)
class _Schemas:
    schema: RegisteredSchema

    def get(self, schema_id: int) -> RegisteredSchema | InferenceError | Pending:
        return self.schema if schema_id == 1 else Pending("another schema")

    def register(self, subject: str, schema: RegisteredSchema) -> int | InferenceError | Pending:
        return 1


def targets() -> list[Target]:
    """Every decoder of formats with schemas."""
    avro = RegisteredSchema("AVRO", json.dumps(AVRO), schema_id=1)
    protobuf = RegisteredSchema("PROTOBUF", PROTO, schema_id=1)
    return [
        Target("route-avro", "bytes", _reading("avro", avro, (*PATHS, "sum", "ratio")), _avro_seeds),
        Target("route-protobuf", "bytes", _reading("protobuf", protobuf, PATHS), _protobuf_seeds),
        Target("schema-avro", "json", _parse_avro, lambda: [json.dumps(AVRO).encode(), b"{}", b'"x"'], weight=0.3),
        Target("schema-protobuf", "bytes", _parse_protobuf, lambda: [PROTO.encode(), b"message {"], weight=0.3),
    ]


def _reading(name: str, schema: RegisteredSchema, paths: Sequence[str]) -> Any:
    reader = format_named(name).reader(Format(name), [parse_path(path) for path in paths], "new", _Schemas(schema))

    def run(data: bytes) -> str | None:
        (result,) = reader.read([_Record(data)])
        if isinstance(result, InferenceError):
            raise result
        return "pending" if isinstance(result, Pending) else None

    return run


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _parse_avro(data: bytes) -> None:
    parse_avro(_text(data))


def _parse_protobuf(data: bytes) -> None:
    parse_schema(RegisteredSchema("PROTOBUF", _text(data)))


def _avro_seeds() -> list[bytes]:
    item = {"price": 1.5, "more": {"price": None, "more": None}}
    tree = {"id": 7, "items": [item, item], "nothing": [None] * 3, "tags": {"x": "y", "z": 1.5}, "kind": "B"}
    buffer = io.BytesIO()
    plain = json.loads(json.dumps(AVRO).replace(', "logicalType": "decimal", "precision": 9, "scale": 2', ""))
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(plain), tree | {"sum": b"\1\2", "ratio": 0.5})
    return [HEADER + buffer.getvalue(), HEADER, b"{}", b"\0\0\0\0\2" + buffer.getvalue()]


def _protobuf_seeds() -> list[bytes]:
    message = GetMessageClass(parse_schema(RegisteredSchema("PROTOBUF", PROTO)).message((0,)))
    item = {"price": 1.5, "more": {"more": {"price": 2.5}}}
    value: bytes = message(id=7, items=[item, item], tags={"x": 1.5}, kind=1).SerializeToString()
    return [HEADER + b"\0" + value, HEADER + b"\2\0" + value, HEADER, b"{}", HEADER + b"\0\x08"]
