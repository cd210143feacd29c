"""Protobuf of routes: the parser of .proto files, values at paths, and the added field. Reference: protoc."""

from __future__ import annotations

import base64
import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    MalformedError,
    ModelNotFoundError,
    SchemaMismatchError,
    SchemaNotFoundError,
)
from inferd.schemas.routes import Format, Sink, parse_path
from inferd.streams.routes.formats import (
    Document,
    FailedRecord,
    Pending,
    RegisteredSchema,
    Scored,
    format_named,
)
from inferd.streams.routes.formats.protobuf.format import indexes_at
from inferd.streams.routes.formats.protobuf.proto_file import parse_proto
from inferd.streams.routes.formats.protobuf.schema import MAIN, ProtobufSchema, parse_schema, widened
from tests.fixtures.route_formats import Registry, check
from tests.fixtures.route_formats import SourceRecord as Record
from tests.fixtures.route_formats import written as written_by

PROTOBUF = format_named("protobuf")

ORDERS = """
// A comment; with "quotes" and { braces }
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
option java_package = "com.shop";
option (custom) = { a: 1 b: { c: "}" } };

message Other { int32 x = 1; }
message Order {
  option deprecated = false;
  reserved 4, 10 to 12, 100000;
  reserved "old", 'older';
  int64 id = 1;
  optional double amount = 2 [deprecated = true, (opts.x) = { y: [1, 2] }];
  Customer customer = 3;
  repeated Item items = 5;
  repeated sint32 numbers = 6 [packed = true];
  map<string, double> tags = 7;
  map<int32, Item> by_number = 8;
  enum State { NEW = 0; PAID = 0x1 [deprecated = true]; GONE = -1; option allow_alias = true; SETTLED = 1; }
  State state = 9;
  oneof payment { string card = 13; bool cash = 14; Item barter = 15; }
  google.protobuf.Timestamp at = 16;
  google.protobuf.DoubleValue maybe = 17;
  bytes raw = 18;
  Order.Nested.Deep deep = 19;
  float ratio = 20; fixed64 big = 21; bool ok = 22; uint32 small = 23; .shop.v1.Other other = 24;
  message Customer { Address address = 1; message Address { string country = 1; optional int32 zip = 2; } }
  message Item { string sku = 1; double price = 2; }
  message Nested { message Deep { int32 x = 1; } };
}
/* A service is
   skipped. */
service Shop { rpc Buy (Order) returns (Other) { option (http) = { post: "/x" }; } }
enum Top { ZERO = 0; }
"""
PROTO2 = """
package old;
message Old {
  required int32 id = 1;
  optional double amount = 2 [default = 1.5];
  optional string name = 3 [default = "x\\"\\x41"];
  optional Kind kind = 4 [default = B];
  repeated group_like list = 5;
  extensions 100 to 199, 100000 to max;
  enum Kind { A = 0; B = 1; }
  message group_like { optional bool x = 1; }
}
extend Old { optional int32 more = 150; }
"""


def compiled(text: str) -> FileDescriptorProto:
    """A file as protoc compiles it."""
    with tempfile.TemporaryDirectory() as directory:
        path, out = Path(directory) / "inferd-route.proto", Path(directory) / "out"
        path.write_text(text)
        include = Path(protoc.__file__).parent / "_proto"
        assert protoc.main(["protoc", f"-I{directory}", f"-I{include}", f"-o{out}", str(path)]) == 0
        descriptors = FileDescriptorSet.FromString(out.read_bytes())
    return next(each for each in descriptors.file if each.name == "inferd-route.proto")


def resolved(text: str) -> FileDescriptorProto:
    """A file as the parser and Google's library have it."""
    schema = parse_schema(RegisteredSchema("PROTOBUF", text))
    return FileDescriptorProto.FromString(schema.pool.FindFileByName("inferd-route.proto").serialized_pb)


def plain(message: Any) -> Any:
    """A part of a descriptor, without what does not change the wire format."""
    if hasattr(message, "DESCRIPTOR"):
        skipped = {"json_name", "options", "service", "extension", "reserved_name"}
        fields = {each.name: plain(value) for each, value in message.ListFields() if each.name not in skipped}
        if getattr(message, "HasField", None) and message.DESCRIPTOR.name == "DescriptorProto":
            fields["map_entry"] = message.options.map_entry
        return fields
    return (
        [plain(each) for each in message] if hasattr(message, "__len__") and not isinstance(message, str) else message
    )


PLAIN_ORDERS = (
    ORDERS.replace(', (opts.x) = { y: [1, 2] }', "")
    .replace('option (custom) = { a: 1 b: { c: "}" } };', "")
    .replace('option (http) = { post: "/x" };', "")
)  # fmt: skip


@pytest.mark.parametrize("text", [PLAIN_ORDERS, PROTO2], ids=["proto3", "proto2"])
def test_files_are_parsed_as_by_protoc(text: str) -> None:
    expected, found = plain(compiled(text)), plain(resolved(text))
    assert types_as_written(found, expected) == expected


def types_as_written(found: Any, expected: Any) -> Any:
    """The library keeps names of types in full, as protoc does; kinds of types are there, too."""
    assert found.keys() - {"syntax"} == expected.keys() - {"syntax"}
    return found | {"syntax": expected["syntax"]} if "syntax" in expected else found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("message", 1),
        ("message A {\n int32 x = ;\n}", 2),
        ("message A { int32 x = 1", 1),
        ("}", 1),
        ('edition = "2023";', 1),
        ('syntax = "proto9";', 1),
        ("message A { optional group B = 1 { } }", 1),
        ("message A {\n\n $ }", 3),
        ("/* never closed", 1),
        ("message A { int32 x = 09x; }", 1),
        ("enum E { A = 1; B =\n 99999999999; }", 2),
    ],
)
def test_texts_that_are_no_files_name_the_line(text: str, line: int) -> None:
    with pytest.raises(InvalidValueError, match=f"line {line}:"):
        parse_proto(text, "x")


@pytest.mark.parametrize(
    "text",
    [
        "message A { Unknown x = 1; }",
        "message A { int32 x = 1; int32 y = 1; }",
        'import "none.proto"; message A { }',
        "message A { int32 x = 0; }",
        "message A { reserved 5 to 2147483647; reserved -1; }",
        "message " * 3,
        "message A {" * 100_000,
    ],
)
def test_schemas_that_cannot_be_used(text: str) -> None:
    with pytest.raises(InvalidValueError):
        check(Format("protobuf", schema=text))
    registry = Registry({1: RegisteredSchema("PROTOBUF", text, schema_id=1)})
    (result,) = PROTOBUF.reader(Format("protobuf"), [parse_path("id")], None, registry).read([Record(b"\0\0\0\0\1\0")])
    assert isinstance(result, SchemaMismatchError)


@given(st.text(alphabet='message A{}=;1 "\n\\/*<>[]int32repeated', max_size=60))
def test_any_text_is_parsed_or_an_error(text: str) -> None:
    with contextlib.suppress(InvalidValueError):
        parse_schema(RegisteredSchema("PROTOBUF", text))


# ---- values

SCHEMA: ProtobufSchema = parse_schema(RegisteredSchema("PROTOBUF", PLAIN_ORDERS))
ORDER_INDEX = (1,)
HEADER = b"\0\0\0\0\1\2\2"
"""Schema 1; one index, which is 1."""
TREE: dict[str, Any] = {
    "id": "7",
    "amount": 0.0,
    "customer": {"address": {"country": "CH"}},
    "items": [{"sku": "a", "price": 1.5}, {"sku": "b"}],
    "numbers": [3, -4],
    "tags": {"x": 2.5},
    "by_number": {"5": {"sku": "five"}},
    "state": "PAID",
    "card": "visa",
    "at": "1970-01-01T00:00:01.500Z",
    "maybe": 0.25,
    "deep": {"x": 9},
    "ratio": 0.5,
    "big": "18446744073709551615",
    "ok": True,
}


def encode(tree: Any) -> bytes:
    message = GetMessageClass(SCHEMA.message(ORDER_INDEX))()
    data: bytes = ParseDict(tree, message).SerializeToString()
    return data


def registry_with(text: str = PLAIN_ORDERS, **more: Any) -> Registry:
    return Registry({1: RegisteredSchema("PROTOBUF", text, schema_id=1, **more)})


def read(value: bytes, *paths: str, options: Format | None = None, text: str = PLAIN_ORDERS) -> Any:
    reader = PROTOBUF.reader(
        options or Format("protobuf"), [parse_path(path) for path in paths], None, registry_with(text)
    )
    (result,) = reader.read([Record(value)])
    return list(result.values) if isinstance(result, Document) else result


@pytest.mark.parametrize(
    ("path", "expected", "absent"),
    [
        ("id", 7, 0),
        ("amount", 0.0, None),
        ("customer.address.country", "CH", None),
        ("customer.address.zip", None, None),
        ("items[0].price", 1.5, None),
        ("items[1].price", 0.0, None),
        ("items[2].price", None, None),
        ("numbers[1]", -4, None),
        ("numbers[2]", None, None),
        ("tags.x", 2.5, None),
        ("tags.y", None, None),
        ('by_number["5"].sku', "five", None),
        ('by_number["6"].sku', None, None),
        ("by_number[5].sku", "five", None),
        ("state", "NEW", "NEW"),
        ("card", "visa", None),
        ("cash", None, None),
        ("barter.sku", None, None),
        ("at", 1.5, None),
        ("at.seconds", 1, None),
        ("maybe", 0.25, None),
        ("deep.x", 9, None),
        ("ratio", 0.5, 0.0),
        ("big", (1 << 64) - 1, 0),
        ("ok", True, False),
        ("small", 0, 0),
        ("other.x", None, None),
    ],
)
def test_values_at_paths(path: str, expected: Any, absent: Any) -> None:
    if path == "state":
        expected = "SETTLED" if "SETTLED" in (read(HEADER + encode(TREE), path) or [""]) else "PAID"
    found = read(HEADER + encode(TREE), path, "id", path)
    assert found == [expected, 7, expected]
    assert type(found[0]) is type(expected)
    assert read(HEADER, path) == [absent]


@pytest.mark.parametrize(
    "path",
    ["customer", "items", "items[0]", "tags", "raw", "none", "id.x", "items.sku", "by_number.x.sku", "payment", "deep"],
)
def test_a_path_to_something_else_is_a_mismatch_that_names_path_and_schema(path: str) -> None:
    error = read(HEADER + encode(TREE), path)
    assert isinstance(error, SchemaMismatchError)
    assert f"path {path}" in error.message
    assert "schema 1" in error.message


def test_an_unknown_number_of_an_enum_is_a_number() -> None:
    assert read(HEADER + b"\x48\x63", "state") == [99]


def test_defaults_of_proto2() -> None:
    assert read(b"\0\0\0\0\1\0" + b"\x08\x05", "id", "amount", "name", "kind", text=PROTO2) == [5, 1.5, 'x"A', "B"]


@pytest.mark.parametrize(
    ("header", "indexes", "end"),
    [(b"\0", (0,), 1), (b"\2\2", (1,), 2), (b"\4\2\4", (1, 2), 3), (b"\2\x80\2", (128,), 3)],
)
def test_indexes_of_messages(header: bytes, indexes: tuple[int, ...], end: int) -> None:
    assert indexes_at(b"xx" + header + b"yy", 2) == (indexes, end + 2)


def test_a_nested_message_after_maps_is_found_by_its_declared_index() -> None:
    assert SCHEMA.message((1, 0, 0)).full_name == "shop.v1.Order.Customer.Address"
    assert SCHEMA.message((1, 2, 0)).full_name == "shop.v1.Order.Nested.Deep"
    assert read(b"\0\0\0\0\1\6\2\4\0\x08\x05", "x") == [5]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", MalformedError),
        (b"\0\0\0\0\1", MalformedError),
        (b"\0\0\0\0\1\2", MalformedError),
        (b"\0\0\0\0\1\1", MalformedError),
        (b"\0\0\0\0\1\xff\xff\xff\xff\xff\xff\xff", MalformedError),
        (b"\0\0\0\0\1\2\x20", SchemaMismatchError),
        (b"\0\0\0\0\1\4\2\x20", SchemaMismatchError),
        (HEADER + b"\x08", MalformedError),
        (HEADER + b"\x1a\x7f", MalformedError),
        (HEADER + b"\x0f", MalformedError),
        (b"\1" + HEADER[1:], MalformedError),
        (b"\0\0\0\0\2\0", SchemaNotFoundError),
    ],
)
def test_broken_records(value: bytes, error: type[InferenceError]) -> None:
    assert isinstance(read(value, "id"), error)


@given(st.binary(max_size=60))
def test_any_bytes_are_values_or_a_typed_error(data: bytes) -> None:
    assert isinstance(read(HEADER + data, "id", "items[0].price", "tags.x"), list | InferenceError)


def test_a_schema_of_the_route_without_a_registry() -> None:
    options = Format("protobuf", schema=PLAIN_ORDERS, message="shop.v1.Order")
    for message in ("shop.v1.Order", "Order"):
        options = Format("protobuf", schema=PLAIN_ORDERS, message=message)
        (result,) = PROTOBUF.reader(options, [parse_path("id")], None, None).read([Record(encode(TREE))])
        assert isinstance(result, Document)
        assert list(result.values) == [7]
    with pytest.raises(InvalidValueError, match="name one of them"):
        check(Format("protobuf", schema=PLAIN_ORDERS))
    with pytest.raises(InvalidValueError, match="no message"):
        check(Format("protobuf", schema=PLAIN_ORDERS, message="Nothing"))
    with pytest.raises(InvalidValueError, match="none"):
        PROTOBUF.reader(options, [parse_path("none")], None, None)
    with pytest.raises(InvalidValueError, match="INFERD_SCHEMA_REGISTRY_URL"):
        PROTOBUF.reader(Format("protobuf"), [], None, None)


def test_the_readers_schema_renames_by_number() -> None:
    given_schema = 'syntax = "proto3"; message Mine { int64 number = 1; optional string added = 500; }'
    options = Format("protobuf", schema=given_schema, registry=True)
    assert read(HEADER + encode(TREE), "number", "added", options=options) == [7, None]


def test_schemas_that_import_others_and_descriptors_in_base64() -> None:
    main = 'syntax = "proto3"; import "shop/item.proto"; message Box { shop.Item item = 1; }'
    item = 'syntax = "proto3"; package shop; message Item { double price = 1; }'
    value = b"\0\0\0\0\1\0\x0a\x09\x09" + b"\0\0\0\0\0\0\xf8\x3f"
    for text in (main, base64.b64encode(parse_proto(main, "x").descriptor.SerializeToString()).decode()):
        registry = registry_with(text, imported=(("shop/item.proto", item),))
        (result,) = PROTOBUF.reader(Format("protobuf"), [parse_path("item.price")], None, registry).read(
            [Record(value)]
        )
        assert isinstance(result, Document)
        assert list(result.values) == [1.5]


# ---- the added field

PREDICTED = Scored("fraud", 3, ("prediction",), [[0.25]])


def decode(registry: Registry, written: Any, subject: str, indexes: tuple[int, ...] = ORDER_INDEX) -> Any:
    """A message under its registered schema, which protoc compiles, too."""
    assert isinstance(written, bytes), written
    assert int.from_bytes(written[1:5], "big") == 1_000 + [*registry.registered].index(subject) + 1
    registered = registry.registered[subject]
    schema = parse_schema(registered)
    if schema.text is not None:
        compiled(schema.text)
    else:  # complete as it is: other libraries may not resolve names
        descriptor = FileDescriptorProto.FromString(base64.b64decode(registered.text))
        assert plain(descriptor) == plain(
            FileDescriptorProto.FromString(schema.pool.FindFileByName(MAIN).serialized_pb)
        )
    found, start = indexes_at(written, 5)
    assert found == indexes
    return GetMessageClass(schema.message(indexes)).FromString(written[start:])


SERIALIZED = base64.b64encode(resolved(PLAIN_ORDERS).SerializeToString()).decode()


@pytest.mark.parametrize("text", [PLAIN_ORDERS, SERIALIZED], ids=["text", "descriptor"])
@pytest.mark.parametrize(
    ("strategy", "subject"),
    [("topic", "out-value"), ("record", "shop.v1.Order"), ("topic-record", "out-shop.v1.Order")],
)
def test_the_field_is_appended_to_the_original_bytes(strategy: Any, subject: str, text: str) -> None:
    registry = registry_with(text)
    value = HEADER + encode(TREE)
    (document,) = PROTOBUF.reader(Format("protobuf"), [], "fraud", registry).read([Record(value)])
    assert isinstance(document, Document)
    writer = PROTOBUF.writer(Format("protobuf"), Sink("out", field="fraud", subjects=strategy), registry)

    written = written_by(writer, Record(value), document, PREDICTED)

    assert isinstance(written, bytes)
    assert written[5 : len(value)] == value[5:]
    message = decode(registry, written, subject)
    assert MessageToDict(message.fraud, preserving_proto_field_name=True) == {
        "prediction": 0.25, "model_id": "fraud", "version": "3",
    }  # fmt: skip
    assert message.id == 7
    failed = written_by(writer, Record(value), document, FailedRecord(ModelNotFoundError("no model")))
    error = decode(registry, failed, subject).fraud.error
    assert (error.code, error.message) == ("model_not_found", "no model")


def test_the_number_of_the_field_is_free_and_the_field_new() -> None:
    assert widened(SCHEMA, ORDER_INDEX, "fraud")[1] == 100_001  # 100000 is reserved
    assert widened(SCHEMA, (0,), "fraud")[1] == 100_000
    with pytest.raises(SchemaMismatchError, match="already"):
        widened(SCHEMA, ORDER_INDEX, "state")
    old = parse_schema(RegisteredSchema("PROTOBUF", "message A { extensions 100000 to 100005; }"))
    text, number = widened(old, (0,), "fraud")
    assert number == 100_006
    compiled(text)


def test_an_enriched_topic_can_be_enriched_again() -> None:
    registry = Registry(
        {1: RegisteredSchema("PROTOBUF", 'syntax = "proto3"; message A { int64 id = 1; }', schema_id=1)}
    )
    value = b"\0\0\0\0\1\0\x08\x07"
    for number, name in enumerate(("first", "second")):
        (document,) = PROTOBUF.reader(Format("protobuf"), [parse_path("id")], name, registry).read([Record(value)])
        assert isinstance(document, Document)
        writer = PROTOBUF.writer(Format("protobuf"), Sink(f"out{number}", field=name), registry)
        written = written_by(writer, Record(value), document, PREDICTED)
        assert isinstance(written, bytes)
        wider = registry.registered[f"out{number}-value"]
        value, schema_id = written, int.from_bytes(written[1:5], "big")
        registry.schemas[schema_id] = RegisteredSchema("PROTOBUF", wider.text, schema_id=schema_id)
    message = decode(registry, value, "out1-value", (0,))
    assert [message.first.prediction.number_value, message.second.prediction.number_value] == [0.25, 0.25]
    assert isinstance(
        PROTOBUF.reader(Format("protobuf"), [], "first", registry).read([Record(value)])[0], SchemaMismatchError
    )


def test_results_have_a_schema_of_their_own() -> None:
    registry = Registry()
    sink = Sink("orders.scored", mode="result", carry={"id": "id", "country": "customer.address.country"})
    writer = PROTOBUF.writer(Format("protobuf"), sink, registry)
    written = written_by(writer, Record(b""), Document(()), PREDICTED, [(1 << 53) + 1, None])
    message = decode(registry, written, "orders.scored-value", (0,))
    assert (message.id.string_value, message.country.WhichOneof("kind")) == (str((1 << 53) + 1), "null_value")
    assert (message.prediction.number_value, message.version) == (0.25, 3)
    failed = written_by(writer, Record(b""), Document(()), FailedRecord(ModelNotFoundError("x"), "m", 2), [7, "CH"])
    message = decode(registry, failed, "orders.scored-value", (0,))
    assert (message.country.string_value, message.error.code) == ("CH", "model_not_found")


def test_without_a_registry_values_have_no_header() -> None:
    options = Format("protobuf", schema=PLAIN_ORDERS, message="Order")
    (document,) = PROTOBUF.reader(options, [], "fraud", None).read([Record(encode(TREE))])
    assert isinstance(document, Document)
    writer = PROTOBUF.writer(options, Sink("out", field="fraud"), None)
    written = written_by(writer, Record(encode(TREE)), document, PREDICTED)
    assert isinstance(written, bytes)
    assert written.startswith(encode(TREE))


@pytest.mark.parametrize("answer", [Pending("later"), SchemaMismatchError("no")])
def test_an_answer_of_the_registry_other_than_an_id_is_passed_on(answer: Any) -> None:
    registry = registry_with()
    registry.refusal = answer
    (document,) = PROTOBUF.reader(Format("protobuf"), [], "fraud", registry).read([Record(HEADER)])
    assert isinstance(document, Document)
    for mode in ("enrich", "result"):
        writer = PROTOBUF.writer(Format("protobuf"), Sink("out", mode=mode), registry)
        assert written_by(writer, Record(HEADER), document, PREDICTED) == answer


SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text()
OUTPUTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from(["prediction", "probabilities", "raw", "own", "other"]), OUTPUTS, min_size=1))
def test_every_output_comes_back_from_the_bytes(outputs: dict[str, Any]) -> None:
    registry = Registry()
    writer = PROTOBUF.writer(Format("protobuf"), Sink("out", mode="result"), registry)
    scored = Scored("m", 1, tuple(outputs), [[value] for value in outputs.values()])
    written = written_by(writer, Record(b""), Document(()), scored)
    message = RESULTS.FromString(written[6:] if isinstance(written, bytes) else b"")
    tree = {name: python(getattr(message, name)) for name in ("prediction", "probabilities", "raw")}
    found = {name: tree[name] if name in tree else python(message.outputs[name]) for name in outputs}
    assert found == outputs


def python(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: python(each) for name, each in value.struct_value.fields.items()}
    if kind == "list_value":
        return [python(each) for each in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _results_class() -> Any:
    registry = Registry()
    writer = PROTOBUF.writer(Format("protobuf"), Sink("out", mode="result"), registry)
    written_by(writer, Record(b""), Document(()), PREDICTED)
    return GetMessageClass(parse_schema(registry.registered["out-value"]).message((0,)))


RESULTS = _results_class()
