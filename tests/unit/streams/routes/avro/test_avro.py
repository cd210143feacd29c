"""Avro of routes: values at paths, schema evolution, broken records, and the added field. Reference: fastavro."""

from __future__ import annotations

import io
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    MalformedError,
    ModelNotFoundError,
    SchemaMismatchError,
    SchemaNotFoundError,
    TooDeepError,
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
from tests.fixtures.route_formats import Registry, check, sources
from tests.fixtures.route_formats import SourceRecord as Record
from tests.fixtures.route_formats import written as written_by

AVRO = format_named("avro")


def add(registry: Registry, schema: Any) -> None:
    registry.schemas[1] = RegisteredSchema("AVRO", json.dumps(schema), schema_id=1)


def record(*fields: Any, name: str = "Order") -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "shop", "fields": [*fields]}


def named(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def encode(schema: Any, value: Any, schema_id: int | None = 1) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), value)
    header = b"" if schema_id is None else b"\0" + schema_id.to_bytes(4, "big")
    return header + buffer.getvalue()


def read(schema: Any, value: Any, *paths: str, reader: Any = None) -> Any:
    registry = Registry()
    add(registry, schema)
    options = Format("avro") if reader is None else Format("avro", schema=json.dumps(reader), registry=True)
    made = AVRO.reader(options, [parse_path(path) for path in paths], None, registry)
    (result,) = made.read([Record(value if isinstance(value, bytes) else encode(schema, value))])
    return list(result.values) if isinstance(result, Document) else result


KINDS: Any = [
    ("boolean", True, True),
    ("int", -7, -7),
    ("long", -(1 << 63), -(1 << 63)),
    ("long", (1 << 63) - 1, (1 << 63) - 1),
    ("float", 0.5, 0.5),
    ("double", 0.1, 0.1),
    ("string", "zürich", "zürich"),
    ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("-12.34"), -12.34),
    (
        {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 3},
        Decimal("1.005"),
        1.005,
    ),
    ({"type": "string", "logicalType": "uuid"}, uuid.UUID(int=5), str(uuid.UUID(int=5))),
    ({"type": "long", "logicalType": "timestamp-micros"}, 1_700_000_000_123_456, 1_700_000_000_123_456),
    ({"type": "int", "logicalType": "date"}, 19_000, 19_000),
]


@pytest.mark.parametrize(("kind", "value", "expected"), KINDS)
def test_values_of_each_type(kind: Any, value: Any, expected: Any) -> None:
    around = (named("before", "string"), named("x", kind), named("maybe", ["null", kind_again(kind)]))
    schema = record(*around, named("after", "long"))
    tree = {"before": "b", "x": value, "maybe": value, "after": 300}
    found = read(schema, tree, "x", "maybe", "after", "x")
    assert found == [expected, expected, 300, expected]
    assert type(found[0]) is type(expected)
    assert read(schema, tree | {"maybe": None}, "maybe", "x") == [None, expected]


def kind_again(kind: Any) -> Any:
    return kind["name"] if isinstance(kind, dict) and "name" in kind else kind


def test_a_fixed_uuid() -> None:
    kind = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
    number = uuid.uuid5(uuid.NAMESPACE_DNS, "x")
    value = b"\0\0\0\0\1" + number.bytes
    assert read(record(named("u", kind)), value, "u") == [str(number)]


ADDRESS = record(named("country", "string"), named("zip", ["null", "int"]), name="Address")
ORDER = record(
    named("id", "long"),
    named("customer", ["null", record(named("address", ADDRESS), name="Customer")]),
    named("items", {"type": "array", "items": record(named("sku", "string"), named("price", "double"), name="Item")}),
    named("tags", {"type": "map", "values": ["null", "double", "string"]}),
)
TREE = {
    "id": 7,
    "customer": {"address": {"country": "CH", "zip": 8000}},
    "items": [{"sku": "a", "price": 1.5}, {"sku": "b", "price": 2.5}],
    "tags": {"x": 1.0, "y": "why", "z": None},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("customer.address.country", "CH"),
        ("customer.address.zip", 8000),
        ("items[0].price", 1.5),
        ("items[1].sku", "b"),
        ("items[2].sku", None),
        ("tags.x", 1.0),
        ("tags.y", "why"),
        ("tags.z", None),
        ("tags.none", None),
    ],
)
def test_paths_into_records_arrays_maps_and_unions(path: str, expected: Any) -> None:
    assert read(ORDER, TREE, path) == [expected]
    assert read(ORDER, TREE, "id", path, "items[1].price") == [7, expected, 2.5]
    without = TREE | {"customer": None, "items": [], "tags": {}}
    assert read(ORDER, without, path) == [None]


@pytest.mark.parametrize(
    "path", ["customer", "items", "items[0]", "tags", "id.x", "nothing", "items.sku", "customer.x"]
)
def test_a_path_to_something_else_is_a_mismatch_that_names_path_and_schema(path: str) -> None:
    error = read(ORDER, TREE, path)
    assert isinstance(error, SchemaMismatchError)
    assert f"path {path}" in error.message
    assert "schema 1" in error.message


def test_a_union_whose_branch_does_not_fit_is_a_mismatch_of_its_records_only() -> None:
    schema = record(named("x", ["double", record(named("y", "double"), name="Inner")]))
    assert read(schema, {"x": 2.5}, "x") == [2.5]
    assert read(schema, {"x": {"y": 1.5}}, "x.y") == [1.5]
    assert isinstance(read(schema, {"x": {"y": 1.5}}, "x"), SchemaMismatchError)
    assert isinstance(read(schema, {"x": 2.5}, "x.y"), SchemaMismatchError)


def test_fields_that_are_added_removed_renamed_and_promoted() -> None:
    reader = record(
        named("id", "double"),
        named("total", ["null", "double"], aliases=["sum", "amount"]),
        named("currency", "string", default="CHF"),
        named("note", ["null", "string"], default=None),
        named("state", {"type": "enum", "name": "S", "symbols": ["NEW", "OTHER"], "default": "OTHER"}),
    )
    states = {"type": "enum", "name": "S", "symbols": ["NEW", "GONE"]}
    writer = record(named("more", "string"), named("id", "int"), named("amount", "float"), named("state", states))
    tree = {"more": "m", "id": 3, "amount": 0.5, "state": "GONE"}
    paths = ("id", "total", "currency", "note", "state")

    found = read(writer, tree, *paths, reader=reader)

    assert found == [3.0, 0.5, "CHF", None, "OTHER"]
    assert type(found[0]) is float
    buffer = io.BytesIO(encode(writer, tree, None))
    resolved: Any = fastavro.schemaless_reader(buffer, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
    assert found == [resolved[path] for path in paths]


def test_a_schema_that_lost_a_feature_is_a_mismatch() -> None:
    reader = record(named("amount", "double"))
    for expected in (None, reader):
        error = read(record(named("id", "long")), {"id": 1}, "amount", reader=expected)
        assert isinstance(error, SchemaMismatchError)
        assert "schema 1" in error.message


def test_a_type_that_the_reader_does_not_take_is_a_mismatch() -> None:
    error = read(record(named("amount", "string")), {"amount": "x"}, "amount", reader=record(named("amount", "double")))
    assert isinstance(error, SchemaMismatchError)


def test_a_route_may_give_the_schema_of_records_without_a_header() -> None:
    options = Format("avro", schema=json.dumps(ORDER))
    reader = AVRO.reader(options, [parse_path("items[1].price")], None, None)
    results = reader.read([Record(encode(ORDER, TREE, None)), Record(b""), Record(None), Record(b"\0")])
    assert isinstance(results[0], Document)
    assert list(results[0].values) == [2.5]
    assert all(isinstance(each, MalformedError) for each in results[1:])
    with pytest.raises(InvalidValueError, match="nothing"):
        AVRO.reader(options, [parse_path("nothing")], None, None)
    with pytest.raises(InvalidValueError, match="INFERD_SCHEMA_REGISTRY_URL"):
        AVRO.reader(Format("avro"), [parse_path("id")], None, None)


@pytest.mark.parametrize("schema", ["", "{}", '"string"', '{"type":"record"}', "[1]", "null", "[" * 100_000])
def test_schemas_that_are_none(schema: str) -> None:
    with pytest.raises(InvalidValueError):
        check(Format("avro", schema=schema))
    registry = Registry({1: RegisteredSchema("AVRO", schema, schema_id=1)})
    (result,) = AVRO.reader(Format("avro"), [parse_path("id")], None, registry).read([Record(b"\0\0\0\0\1\2")])
    assert isinstance(result, SchemaMismatchError)


def test_an_error_about_a_name_that_is_not_unicode_can_be_printed() -> None:
    with pytest.raises(InvalidValueError) as caught:
        check(Format("avro", schema='{"type":"record","name":"a","fields":[{"name":"f","type":"x\\ud800"}]}'))
    caught.value.message.encode()


def test_a_schema_of_another_kind_is_a_mismatch() -> None:
    registry = Registry({1: RegisteredSchema("PROTOBUF", "", schema_id=1)})
    (result,) = AVRO.reader(Format("avro"), [parse_path("id")], None, registry).read([Record(b"\0\0\0\0\1\2")])
    assert isinstance(result, SchemaMismatchError)


def test_a_schema_that_refers_to_another_subject() -> None:
    schema = {**ORDER, "fields": [named("address", "shop.Address")]}
    imported = (("shop.Address", json.dumps(ADDRESS)),)
    registry = Registry({1: RegisteredSchema("AVRO", json.dumps(schema), imported=imported, schema_id=1)})
    reader = AVRO.reader(Format("avro"), [parse_path("address.country")], None, registry)
    (result,) = reader.read([Record(b"\0\0\0\0\1" + encode(ADDRESS, {"country": "CH", "zip": 1}, None))])
    assert isinstance(result, Document)
    assert list(result.values) == ["CH"]


def test_headers_that_are_broken_and_schemas_that_are_unknown_or_awaited() -> None:
    registry = Registry({3: Pending("schema 3: asked for")})
    add(registry, ORDER)
    reader = AVRO.reader(Format("avro"), [parse_path("id")], None, registry)
    good = encode(ORDER, TREE)
    values = [good, b"", b"\0\0\0", b"\1" + good[1:], b"{}", b"\0\0\0\0\2" + good[5:], b"\0\0\0\0\3" + good[5:], good]
    results = reader.read([Record(value) for value in values])
    kinds = [Document, *[MalformedError] * 4, SchemaNotFoundError, Pending, Document]
    assert [type(result) for result in results] == kinds


@pytest.mark.parametrize("path", ["id", "items[1].price", "tags.y", "customer.address.zip"])
def test_cut_and_trailing_bytes_are_malformed(path: str) -> None:
    good = encode(ORDER, TREE)
    for end in range(5, len(good)):
        assert isinstance(read(ORDER, good[:end], path), MalformedError), end
    assert isinstance(read(ORDER, good + b"\0", path), MalformedError)


def test_claims_of_items_and_bytes_that_are_not_there_end_at_once() -> None:
    huge = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    nulls = record(named("n", {"type": "array", "items": "null"}), named("x", "long"))
    for path in ("x", "n[3]"):
        assert read(nulls, b"\0\0\0\0\1" + huge + b"\0\2", path) in ([1], [None])
    for kind in ({"type": "array", "items": "long"}, {"type": "map", "values": "long"}, "string", "bytes"):
        schema = record(named("n", kind), named("x", "long"))
        assert isinstance(read(schema, b"\0\0\0\0\1" + huge + b"\0\2", "x"), MalformedError)


def test_a_record_within_itself() -> None:
    schema = record(named("next", ["null", "shop.Order"]), named("x", "long"))
    tree = {"next": {"next": {"next": None, "x": 3}, "x": 2}, "x": 1}
    assert read(schema, tree, "x", "next.x", "next.next.x", "next.next.next.x") == [1, 2, 3, None]
    assert isinstance(read(schema, b"\0\0\0\0\1" + b"\2" * 1_000_000, "x"), TooDeepError)


# ---- the added field

PREDICTED = Scored("fraud", 3, ("prediction",), [[0.25]])


def decode(registry: Registry, written: Any, subject: str) -> Any:
    assert isinstance(written, bytes), written
    schema_id = int.from_bytes(written[1:5], "big")
    assert schema_id == 1_000 + [*registry.registered].index(subject) + 1
    schema = fastavro.parse_schema(json.loads(registry.registered[subject].text))
    buffer = io.BytesIO(written[5:])
    tree = fastavro.schemaless_reader(buffer, schema, None)
    assert buffer.read() == b""
    return tree


@pytest.mark.parametrize(
    ("strategy", "subject"), [("topic", "out-value"), ("record", "shop.Order"), ("topic-record", "out-shop.Order")]
)
def test_the_field_is_appended_to_the_original_bytes(strategy: Any, subject: str) -> None:
    registry = Registry()
    add(registry, ORDER)
    value = encode(ORDER, TREE)
    reader = AVRO.reader(Format("avro"), [parse_path("id")], "fraud", registry)
    (document,) = reader.read([Record(value)])
    assert isinstance(document, Document)
    writer = AVRO.writer(Format("avro"), Sink("out", field="fraud", subjects=strategy), registry)

    written = written_by(writer, Record(value), document, PREDICTED)

    assert isinstance(written, bytes)
    assert written[5 : len(value)] == value[5:]
    tree = decode(registry, written, subject)
    fraud = {"prediction": 0.25, "model_id": "fraud", "version": 3}
    nothing = dict.fromkeys(("probabilities", "raw", "contributions", "leaves", "outputs", "error"))
    assert tree == TREE | {"fraud": nothing | fraud}

    failed = written_by(writer, Record(value), document, FailedRecord(ModelNotFoundError("no model")))
    tree = decode(registry, failed, subject)
    assert tree["fraud"]["error"] == {"code": "model_not_found", "message": "no model"}
    assert tree["fraud"]["prediction"] is None


def test_an_enriched_topic_can_be_enriched_again() -> None:
    registry = Registry()
    add(registry, record(named("id", "long")))
    value = encode(record(named("id", "long")), {"id": 1})
    for number, name in enumerate(("first", "second", "third")):
        reader = AVRO.reader(Format("avro"), [parse_path("id")], name, registry)
        (document,) = reader.read([Record(value)])
        assert isinstance(document, Document)
        sink = Sink(f"out{number}", field=name)
        written = written_by(AVRO.writer(Format("avro"), sink, registry), Record(value), document, PREDICTED)
        assert isinstance(written, bytes)
        value, schema_id = written, int.from_bytes(written[1:5], "big")
        wider = registry.registered[f"out{number}-value"]
        registry.schemas[schema_id] = RegisteredSchema("AVRO", wider.text, schema_id=schema_id)
    tree = decode(registry, value, "out2-value")
    assert [tree[name]["prediction"] for name in ("first", "second", "third")] == [0.25] * 3
    reader = AVRO.reader(Format("avro"), [parse_path("second.prediction")], "second", registry)
    (again,) = reader.read([Record(value)])
    assert isinstance(again, SchemaMismatchError)


def test_results_have_a_schema_of_their_own() -> None:
    registry = Registry()
    sink = Sink("orders.scored", mode="result", carry={"id": "id", "country": "customer.address.country"})
    writer = AVRO.writer(Format("avro"), sink, registry)
    written = written_by(writer, Record(b""), Document(()), PREDICTED, [(1 << 63) - 1, None])
    tree = decode(registry, written, "orders.scored-value")
    assert (tree["id"], tree["country"], tree["prediction"], tree["version"]) == ((1 << 63) - 1, None, 0.25, 3)
    failed = written_by(writer, Record(b""), Document(()), FailedRecord(ModelNotFoundError("x"), "m", 2), [7, "CH"])
    tree = decode(registry, failed, "orders.scored-value")
    assert (tree["country"], tree["prediction"], tree["error"]["code"]) == ("CH", None, "model_not_found")
    failed = written_by(writer, Record(b""), Document(()), FailedRecord(ModelNotFoundError("x")))  # nothing was carried
    tree = decode(registry, failed, "orders.scored-value")
    assert (tree["id"], tree["country"], tree["error"]["code"]) == (None, None, "model_not_found")


def test_without_a_registry_values_have_no_header() -> None:
    options = Format("avro", schema=json.dumps(ORDER))
    (document,) = AVRO.reader(options, [], "fraud", None).read([Record(encode(ORDER, TREE, None))])
    assert isinstance(document, Document)
    value = encode(ORDER, TREE, None)
    writer = AVRO.writer(options, Sink("out", field="fraud"), None)
    written = written_by(writer, Record(value), document, PREDICTED)
    assert isinstance(written, bytes)
    assert written.startswith(value)


@pytest.mark.parametrize("answer", [Pending("later"), SchemaMismatchError("no")])
def test_an_answer_of_the_registry_other_than_an_id_is_passed_on(answer: Any) -> None:
    registry = Registry(refusal=answer)
    add(registry, ORDER)
    for mode in ("enrich", "result"):
        writer = AVRO.writer(Format("avro"), Sink("out", mode=mode), registry)
        document = Document((), registry.schemas[1])
        assert written_by(writer, Record(b""), document, PREDICTED) == answer


@pytest.mark.parametrize("name", ["a-b", "", "1a", "é"])
def test_fields_with_names_that_avro_does_not_allow(name: str) -> None:
    with pytest.raises(InvalidValueError):
        AVRO.writer(Format("avro"), Sink("out", field=name), Registry())
    for each in ("avro", "protobuf"):
        with pytest.raises(InvalidValueError, match="no name of Avro or Protobuf"):
            check(Format(each), Sink("out", "result", carry={name: "x"}))


SCALARS = st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False) | st.text()
NESTED = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=3)
OUTPUTS = NESTED | st.lists(NESTED, max_size=3) | st.dictionaries(st.text(max_size=3), NESTED, max_size=3)


@given(st.dictionaries(st.sampled_from(["prediction", "probabilities", "raw", "own", "other"]), OUTPUTS, min_size=1))
def test_every_output_comes_back_from_the_bytes(outputs: dict[str, Any]) -> None:
    registry = Registry()
    writer = AVRO.writer(Format("avro"), Sink("out", mode="result"), registry)
    scored = Scored("m", 1, tuple(outputs), [[value] for value in outputs.values()])
    written = written_by(writer, Record(b""), Document(()), scored)
    tree = decode(registry, written, "out-value")
    found = {name: tree[name] if name in tree else tree["outputs"][name] for name in outputs}
    assert found == outputs


def test_an_output_nested_deeper_than_the_schema_allows_is_an_error_of_its_record() -> None:
    writer = AVRO.writer(Format("avro"), Sink("out", mode="result"), Registry())
    column = [1.0, [[[1.0]]], 2.0]
    scored = Scored("m", 1, ("prediction",), [column])
    written = writer.predictions(sources([Record(b"")] * 3, [Document(())] * 3), scored)
    assert [type(each) for each in written] == [bytes, InvalidValueError, bytes]


# ---- any schema and any value: the same as fastavro


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3) -> tuple[Any, st.SearchStrategy[Any]]:
    """A schema, and its values."""
    leaves: list[tuple[Any, st.SearchStrategy[Any]]] = [
        ("null", st.none()),
        ("boolean", st.booleans()),
        ("int", st.integers(-(1 << 31), (1 << 31) - 1)),
        ("long", st.integers(-(1 << 63), (1 << 63) - 1)),
        ("float", st.floats(width=32)),
        ("double", st.floats()),
        ("string", st.text()),
        ("bytes", st.binary()),
    ]
    kind = draw(st.sampled_from(["leaf", "leaf", "record", "array", "map", "union", "enum"] if depth else ["leaf"]))
    name = f"T{draw(st.integers(0, 10**9))}"
    if kind == "leaf":
        return leaves[draw(st.integers(0, len(leaves) - 1))]
    if kind == "enum":
        return {"type": "enum", "name": name, "symbols": ["A", "B", "C"]}, st.sampled_from("ABC")
    if kind == "union":
        inner, values = draw(
            schemas(depth - 1).filter(lambda each: each[0] != "null" and not isinstance(each[0], list))
        )
        return draw(st.sampled_from([["null", inner], [inner, "null"]])), st.none() | values
    if kind in ("array", "map"):
        inner, values = draw(schemas(depth - 1))
        if kind == "array":
            return {"type": "array", "items": inner}, st.lists(values, max_size=4)
        return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=4), values, max_size=4)
    return draw(records(depth - 1))


@st.composite
def records(draw: st.DrawFn, depth: int = 3) -> tuple[Any, st.SearchStrategy[Any]]:
    fields = draw(st.lists(schemas(depth), min_size=1, max_size=5))
    name = f"R{draw(st.integers(0, 10**9))}"
    schema = {"type": "record", "name": name, "fields": [named(f"f{i}", kind) for i, (kind, _) in enumerate(fields)]}
    return schema, st.fixed_dictionaries({f"f{i}": values for i, (_, values) in enumerate(fields)})


def leaves_of(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [
            leaf
            for name, below in tree.items()
            for leaf in leaves_of(below, f'{path}["{name}"]' if path else name)
            if '"' not in name and "\\" not in name
        ]
    if isinstance(tree, list):
        return [leaf for index, below in enumerate(tree) for leaf in leaves_of(below, f"{path}[{index}]")]
    return [] if isinstance(tree, bytes) else [(path, tree)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


@given(records(), st.data())
def test_values_are_those_of_fastavro(schema_and_values: Any, data: st.DataObject) -> None:
    schema, values = schema_and_values
    try:
        value = encode(schema, data.draw(values))
    except (fastavro.schema.SchemaParseException, ValueError):  # two types of one name; a union that is ambiguous
        return
    buffer = io.BytesIO(value[5:])
    leaves = leaves_of(fastavro.schemaless_reader(buffer, fastavro.parse_schema(schema), None))
    paths, expected = [], []
    for path, leaf in leaves:
        try:
            parse_path(path)
        except InvalidValueError:
            continue
        paths.append(path)
        expected.append(leaf)
    found = read(schema, value, *paths)
    if isinstance(found, InferenceError):  # null where the schema has no value at all
        assert isinstance(found, SchemaMismatchError)
        paths, expected = readable(schema, value, paths, expected)
        found = read(schema, value, *paths)
    assert all(map(same, found, expected)), (paths, found, expected)
    assert len(found) == len(expected)


def readable(schema: Any, value: bytes, paths: list[str], expected: list[Any]) -> tuple[list[str], list[Any]]:
    pairs = [(path, leaf) for path, leaf in zip(paths, expected, strict=True)]
    kept = [(path, leaf) for path, leaf in pairs if not isinstance(read(schema, value, path), InferenceError)]
    assert all(leaf is None for path, leaf in pairs if (path, leaf) not in kept)
    return [path for path, _ in kept], [leaf for _, leaf in kept]


@given(records(), st.data())
def test_damaged_bytes_are_values_or_a_typed_error(schema_and_values: Any, data: st.DataObject) -> None:
    schema, values = schema_and_values
    try:
        value = bytearray(encode(schema, data.draw(values)))
    except (fastavro.schema.SchemaParseException, ValueError):
        return
    if len(value) > 5:
        value[data.draw(st.integers(5, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    result = read(schema, bytes(value), "f0")
    assert isinstance(result, list | InferenceError)
