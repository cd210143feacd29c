"""The formats of routes as targets: records, what is written for them, and the texts of schemas."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
from google.protobuf.message_factory import GetMessageClass

from inferd.schemas.cloud_events import Place, decode_event
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.routes import Format, Mode, Sink, parse_path
from inferd.streams.routes.formats import Pending, RegisteredSchema, Scored, Sources, format_named
from inferd.streams.routes.formats.avro.schema import parse_avro
from inferd.streams.routes.formats.protobuf.schema import parse_schema
from tests.fuzz.frames import pack_record, unpack_record
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
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True)
class _Schemas:
    schema: RegisteredSchema

    def get(self, schema_id: int) -> RegisteredSchema | InferenceError | Pending:
        return self.schema if schema_id == 1 else Pending("another schema")

    def register(self, subject: str, schema: RegisteredSchema) -> int | InferenceError | Pending:
        return 1


def targets() -> list[Target]:
    """Every decoder of formats with schemas, and of protocols."""
    avro = RegisteredSchema("AVRO", json.dumps(AVRO), schema_id=1)
    protobuf = RegisteredSchema("PROTOBUF", PROTO, schema_id=1)
    return [
        Target("route-avro", "bytes", _reading("avro", avro, (*PATHS, "sum", "ratio")), _avro_seeds),
        Target("route-protobuf", "bytes", _reading("protobuf", protobuf, PATHS), _protobuf_seeds),
        Target("route-cloudevents", "record", _writing("cloudevents", ("enrich", "result")), _event_seeds),
        Target("route-oip", "record", _writing("oip", ("result",)), _oip_seeds),
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


def _writing(name: str, modes: Sequence[Mode]) -> Any:
    """Reads a record, and writes what a route would in each mode, which the format must be able to read."""
    options = Format(name)
    reader = format_named(name).reader(options, [parse_path("a")], "new", None)
    writers = [format_named(name).writer(options, Sink("out", mode, "new"), None) for mode in modes]

    def run(data: bytes) -> str | None:
        value, headers, _ = unpack_record(data)
        record = _Record(value, headers=headers)
        (read,) = reader.read([record])
        if isinstance(read, InferenceError):
            raise read
        if isinstance(read, Pending):
            return "pending"
        sources = Sources([record], [read], [], lambda _: Place("g", "in", 0, 1, 2))
        column: Any = 0.5 if read.rows is None else [0.5] * len(read.rows)
        for writer in writers:
            (written,) = writer.predictions(sources, Scored("m", 1, ("prediction",), [[column]]))
            if isinstance(written, bytes) and read.schema.structured:
                decode_event(written, DEFAULT_LIMITS)
        return None

    return run


def _event_seeds() -> list[bytes]:
    attributes = {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "x": 5, "urgent": True}
    binary = [(f"ce_{name}", str(value).encode()) for name, value in attributes.items()]
    structured = [("content-type", b"application/cloudevents+json")]
    found: list[tuple[bytes, list[tuple[str, bytes | None]]]] = [
        (b'{"a":1}', [("content-type", b"application/json"), *binary]),
        (b"\x81\xa1a\x01", [*binary]),
        (b"{", [*structured]),
        (json.dumps({**attributes, "data": {"a": 1}}, indent=1).encode(), [*structured]),
        (json.dumps({"data_base64": "gaFhAQ==", **attributes}).encode(), [*structured]),
        (json.dumps({**attributes, "data": {"a": 1}}).encode().replace(b'"data"', b'"d\\u0061ta"'), [*structured]),
    ]
    return [pack_record(value, headers) for value, headers in found]


def _oip_seeds() -> list[bytes]:
    tensor = {"name": "a", "shape": [2], "datatype": "FP64", "data": [1, None]}
    binary = {"name": "a", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": 2}}
    matrix = {
        "name": "m",
        "shape": [2, 1],
        "datatype": "BYTES",
        "data": ["x", "y"],
        "parameters": {"content_type": "np"},
    }
    texts = [json.dumps({"id": "q", "inputs": [each]}).encode() for each in (tensor, matrix, binary)]
    length = ("inference-header-content-length", b"%d" % len(texts[2]))
    return [
        pack_record(b"{", []),
        pack_record(texts[0], []),
        pack_record(texts[1], []),
        pack_record(texts[2] + b"\1\2", [length]),
    ]


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
