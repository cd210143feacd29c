"""CloudEvents of routes, in both modes and with data in every format, against the package `cloudevents`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fastavro
import msgpack
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    ModelNotFoundError,
    SchemaMismatchError,
)
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.routes import CONTENT_TYPES, Format, Route, Sink, Source, format_of, parse_path
from inferd.streams.inference import ModelCatalog, Outcome, Version
from inferd.streams.routes import RouteScorer
from inferd.streams.routes.formats import (
    Described,
    Document,
    FailedRecord,
    Pending,
    RegisteredSchema,
    Scored,
    format_named,
)
from tests.fixtures.lane import sum_model
from tests.fixtures.route_formats import Registry, SourceRecord, check, sources, written
from tests.unit.streams.routes.test_scoring import Record

EVENTS = format_named("cloudevents")
AVRO = {"type": "record", "name": "Order", "fields": [{"name": "a", "type": "double"}, {"name": "b", "type": "double"}]}
AVRO_TEXT = json.dumps(AVRO)
PROTO = 'syntax = "proto3"; message Order { double a = 1; double b = 2; }'
TREE = {"a": 1.5, "b": 2.0}
SCORED = Scored("fraud", 3, ("prediction",), [[0.25]])
FIELDS = {"prediction": 0.25, "model_id": "fraud", "version": 3}
ATTRIBUTES = {"id": "e-1", "source": "/shop", "type": "order.created"}
CLOUD_EVENT = "application/cloudevents+json"
both_modes = pytest.mark.parametrize("mode", ["binary", "structured"])


def avro(tree: Any, schema: Any = AVRO) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), tree)
    return buffer.getvalue()


DATA: dict[str, tuple[bytes, dict[str, Any]]] = {
    "json": (json.dumps(TREE).encode(), {}),
    "msgpack": (msgpack.packb(TREE), {}),
    "avro": (avro(TREE), {"schema": AVRO_TEXT}),
    "protobuf": (b"\x09" + b"\0\0\0\0\0\0\xf8\x3f" + b"\x11" + b"\0\0\0\0\0\0\0\x40", {"schema": PROTO}),
}
"""Data in each format, and the options that it needs."""


def event(mode: str, data: Any, data_type: str | None = "application/json", **more: Any) -> SourceRecord:
    """A record as the package writes it. Bytes are data in base64 in structured mode."""
    attributes = {**ATTRIBUTES, **more} | ({} if data_type is None else {"datacontenttype": data_type})
    write = to_binary if mode == "binary" else to_structured
    message = write(CloudEvent(attributes=attributes, data=data), JSONFormat())
    return SourceRecord(message.value, b"k", [("trace", b"t"), *message.headers.items()])


def parsed(value: bytes, headers: Any) -> CloudEvent:
    """What the package reads."""
    found = {name: each for name, each in headers if each is not None}
    read = from_structured if found["content-type"].startswith(b"application/cloudevents") else from_binary
    made = read(KafkaMessage(found, None, value), JSONFormat(), CloudEvent)
    assert isinstance(made, CloudEvent)
    return made


def read(record: Any, *paths: str, new_field: str | None = None, registry: Any = None, **options: Any) -> Any:
    made = EVENTS.reader(Format("cloudevents", **options), [parse_path(path) for path in paths], new_field, registry)
    (found,) = made.read([record])
    return found


def result(
    record: Any, sink: Sink, registry: Any = None, scored: Any = SCORED, carried: Any = (), **options: Any
) -> Any:
    document = read(record, registry=registry, **options)
    assert isinstance(document, Document), document
    writer = EVENTS.writer(Format("cloudevents", **options), sink, registry)
    return written(writer, record, document, scored, carried)


def value_for(mode: str, data_format: str) -> Any:
    """The data of an event, for the package."""
    data = DATA[data_format][0]
    return json.loads(data) if mode == "structured" and data_format == "json" else data


@both_modes
@pytest.mark.parametrize("name", DATA)
def test_paths_lead_into_data_in_every_format(mode: str, name: str) -> None:
    for data_type in (CONTENT_TYPES[name][0], CONTENT_TYPES[name][-1] + "; v=1"):
        record = event(mode, value_for(mode, name), data_type)
        document = read(record, "b", "a", data=name, **DATA[name][1])
        assert list(document.values) == [2.0, 1.5]
    if name in ("json", "msgpack"):
        document = read(event(mode, value_for(mode, name), CONTENT_TYPES[name][0]), "b", "a")
        assert list(document.values) == [2.0, 1.5]


@both_modes
def test_the_option_decides_whatever_the_content_type_says(mode: str) -> None:
    for data_type in ("application/octet-stream", "application/json", None):
        record = event(mode, DATA["avro"][0], data_type)
        if mode == "structured":
            assert b"data_base64" in (record.value or b"")
        assert list(read(record, "a", data="avro", schema=AVRO_TEXT).values) == [1.5]
    text = event("structured", TREE, "application/vnd.shop.order+json; charset=utf-8")
    assert list(read(text, "a").values) == [1.5]
    encoded = base64.b64encode(DATA["json"][0]).decode()
    value = json.dumps({**ATTRIBUTES, "specversion": "1.0", "data_base64": encoded}).encode()
    in_base64 = SourceRecord(value, None, [("Content-Type", b"application/CloudEvents+JSON; charset=UTF-8")])
    assert list(read(in_base64, "a", data="json").values) == [1.5]
    assert isinstance(read(in_base64, "a"), InferenceError)  # without a type it would be MessagePack


def test_attributes_are_headers_for_paths_in_both_modes() -> None:
    models = ModelCatalog()
    served = sum_model(1)
    models.put(Version(served.manifest, "ready", served=served))
    source = Source(["in"], Format("cloudevents"))
    features = {"a": "$headers.ce_priority", "b": "b"}
    carry = {"type": "$headers.ce_type", "trace": "$headers.trace"}
    sink = Sink("out", "result", carry=carry)
    scorer = RouteScorer(Route("r", source, "sum", sink, features), models, DEFAULT_LIMITS, "group")
    values = []
    for mode in ("binary", "structured"):
        made = event(mode, TREE if mode == "structured" else DATA["json"][0], priority="40")
        value = (made.value or b"").replace(b'"40"', b"40")  # an integer in structured mode
        outcome = scored_by(scorer, Record(value, headers=tuple(made.headers)))
        read_back = parsed(outcome.values[0], outcome.sink_headers[0])
        values.append(data_of(read_back))
        assert read_back.get_extension("priority") == ("40" if mode == "binary" else 40)
    assert (
        values[0]
        == values[1]
        == {"type": "order.created", "trace": "t", "prediction": 42.0, "model_id": "sum", "version": 1}
    )


def scored_by(scorer: RouteScorer, *records: Record) -> Outcome:
    batch = scorer.of_topic("in").prepare([(2, records)], 0)
    for group in batch.groups:
        group.predict()
    return batch.finish()


def data_of(made: CloudEvent) -> Any:
    data: Any = made.get_data()
    return json.loads(data) if isinstance(data, bytes | str) else data


@both_modes
def test_json_is_enriched_and_everything_else_stays(mode: str) -> None:
    record = event(mode, TREE if mode == "structured" else DATA["json"][0], myextension="x")
    made = result(record, Sink("out", field="fraud"))
    assert isinstance(made, bytes)  # with the headers of the original
    after = parsed(made, record.headers)
    assert data_of(after) == TREE | {"fraud": FIELDS}
    assert after.get_attributes() == parsed(record.value or b"", record.headers).get_attributes()
    failed = result(record, Sink("out", field="fraud"), scored=FailedRecord(ModelNotFoundError("none")))
    assert data_of(parsed(failed, record.headers))["fraud"]["error"]["code"] == "model_not_found"


@both_modes
@pytest.mark.parametrize("name", ["msgpack", "avro", "protobuf"])
def test_binary_data_is_enriched_by_appending(mode: str, name: str) -> None:
    data, options = DATA[name]
    record = event(mode, data, "application/x-of-ours")
    made = result(record, Sink("out", field="fraud"), data=name, **options)
    after = parsed(made, record.headers).get_data()
    assert isinstance(after, bytes)
    if name == "msgpack":
        assert msgpack.unpackb(after) == TREE | {"fraud": FIELDS}
    else:
        assert after.startswith(data)
        assert len(after) > len(data)


@both_modes
def test_avro_of_a_registry_is_enriched_under_a_wider_schema(mode: str) -> None:
    registry = Registry({1: RegisteredSchema("AVRO", AVRO_TEXT, schema_id=1)})
    record = event(mode, b"\0\0\0\0\1" + avro(TREE), "application/avro")
    after = parsed(result(record, Sink("out", field="fraud"), registry), record.headers).get_data()
    assert isinstance(after, bytes)
    assert after[:5] == b"\0\0\0\x03\xe9"
    tree: Any = fastavro.schemaless_reader(
        io.BytesIO(after[5:]), fastavro.parse_schema(json.loads(registry.registered["out-value"].text)), None
    )
    assert (tree["a"], tree["fraud"]["prediction"]) == (1.5, 0.25)
    waits = Registry({1: Pending("schema 1: asked for")})
    assert isinstance(read(record, "a", registry=waits), Pending)


@both_modes
@pytest.mark.parametrize("name", DATA)
def test_results_are_events_of_their_own(mode: str, name: str) -> None:
    record = event(
        mode,
        value_for(mode, name),
        "application/json" if name == "json" else "x/y",
        subject="order 7",
        traceparent="00-ab",
        dataschema="/s",
    )
    made = result(record, Sink("out", "result"), data=name, **DATA[name][1])
    assert isinstance(made, Described)
    assert ("trace", b"t") in made.headers
    assert len({header for header, _ in made.headers}) == len(made.headers)
    after = parsed(made.value, made.headers)
    assert after.get_attributes() == {
        "specversion": "1.0", "id": "in-2-0", "source": "inferd", "type": "ai.inferd.prediction.v1", "subject": "fraud",
        "time": datetime(2026, 1, 2, 3, 0, 0, 123_000, UTC), "relatedid": "e-1", "traceparent": "00-ab",
        "datacontenttype": CONTENT_TYPES[name][0],
    }  # fmt: skip
    if name == "json":
        assert data_of(after) == FIELDS
    failed = result(
        record, Sink("out", "result"), scored=FailedRecord(ModelNotFoundError("no"), "m"), data=name, **DATA[name][1]
    )
    after = parsed(failed.value, failed.headers)
    assert (after.get_type(), after.get_subject()) == ("ai.inferd.error.v1", "m")


def binary(*headers: tuple[str, str | None], value: bytes = DATA["json"][0]) -> SourceRecord:
    return SourceRecord(value, None, [(name, None if text is None else text.encode()) for name, text in headers])


REQUIRED = (("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/"), ("ce_type", "t"))
JSON_TYPE = ("content-type", "application/json")
EVENT_TYPE = ("content-type", CLOUD_EVENT)
START = '{"specversion": "1.0", "id": "1", "source": "/", "type": "t"'
BAD: dict[str, tuple[SourceRecord, str, str]] = {
    "no event": (binary(JSON_TYPE), "malformed", "no CloudEvent"),
    "an id alone": (binary(JSON_TYPE, ("ce_id", "1")), "malformed", "no CloudEvent"),
    "no headers": (binary(), "malformed", "no CloudEvent"),
    "no id": (binary(*REQUIRED[:1], *REQUIRED[2:], JSON_TYPE), "invalid_header", "id is missing"),
    "an id without a value": (binary(*REQUIRED[:1], ("ce_id", None), *REQUIRED[2:], JSON_TYPE), "invalid_header", "id"),
    "an id twice": (binary(*REQUIRED, REQUIRED[1], JSON_TYPE), "invalid_header", "twice"),
    "an old version": (binary(("ce_specversion", "0.3"), *REQUIRED[1:], JSON_TYPE), "invalid_header", "only '1.0'"),
    "another type": (binary(*REQUIRED, ("content-type", "text/csv")), "unsupported_content_type", "text/csv"),
    "empty data": (binary(*REQUIRED, JSON_TYPE, value=b""), "malformed", "empty"),
    "no object": (binary(*REQUIRED, JSON_TYPE, value=b"[1]"), "malformed", "object"),
    "no registry": (binary(*REQUIRED, ("content-type", "application/avro")), "unsupported_content_type", "registry"),
    "a batch": (
        binary(("content-type", "application/cloudevents-batch+json"), value=b"[]"),
        "unsupported_content_type", "one event",
    ),
    "an event in Avro": (
        binary(("content-type", "application/cloudevents+avro"), value=b"x"), "unsupported_content_type", "one event",
    ),
    "structured, no JSON": (binary(EVENT_TYPE, value=b"{"), "malformed", "CloudEvent"),
    "structured, no id": (binary(EVENT_TYPE, value=b'{"specversion": "1.0"}'), "malformed", "id is missing"),
    "structured, no data": (binary(EVENT_TYPE, value=START.encode() + b"}"), "malformed", "no data"),
    "structured, data null": (binary(EVENT_TYPE, value=START.encode() + b', "data": null}'), "malformed", "no data"),
    "structured, data text": (binary(EVENT_TYPE, value=START.encode() + b', "data": "x"}'), "malformed", "object"),
    "structured, no base64": (binary(EVENT_TYPE, value=START.encode() + b', "data_base64": "%"}'), "malformed", "base"),
    "structured, MessagePack in data": (
        binary(EVENT_TYPE, value=START.encode() + b', "datacontenttype": "application/msgpack", "data": {}}'),
        "malformed", "data_base64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_event_is_a_typed_error_and_disturbs_no_other(name: str) -> None:
    record, code, said = BAD[name]
    good = event("binary", DATA["json"][0])
    reader = EVENTS.reader(Format("cloudevents"), [parse_path("a")], "fraud", None)
    before, error, after = reader.read([good, record, event("structured", TREE)])
    assert isinstance(error, InferenceError)
    assert (error.code, said in error.message) == (code, True), error.message
    assert isinstance(before, Document)
    assert isinstance(after, Document)


@both_modes
def test_errors_of_the_data_are_those_of_its_format(mode: str) -> None:
    record = event(mode, {"a": {"x": 1}, "fraud": 1} if mode == "structured" else b'{"a": {"x": 1}, "fraud": 1}')
    assert isinstance(read(record, "a"), SchemaMismatchError)
    assert isinstance(read(record, "a.x", new_field="fraud"), SchemaMismatchError)
    assert list(read(record, "a.x", "none").values) == [1, None]


def test_events_of_both_modes_and_several_formats_are_written_in_their_order() -> None:
    records: list[Any] = []
    for number in range(12):
        mode, name = ("binary", "structured")[number % 2], ("json", "msgpack")[number // 2 % 2]
        tree = {"a": number, "b": 0}
        data: Any = (
            msgpack.packb(tree) if name == "msgpack" else tree if mode == "structured" else json.dumps(tree).encode()
        )
        records.append(event(mode, data, CONTENT_TYPES[name][0], id=f"e-{number}"))
    documents = EVENTS.reader(Format("cloudevents"), [parse_path("a")], None, None).read(records)
    assert [document.values[0] for document in documents if isinstance(document, Document)] == list(range(12))
    of_all = sources(records, [each for each in documents if isinstance(each, Document)], [[n] for n in range(12)])
    writer = EVENTS.writer(Format("cloudevents"), Sink("out", "result", carry={"number": "a"}), None)
    made = writer.predictions(of_all, Scored("m", 1, ("prediction",), [[n / 2 for n in range(12)]]))
    for number, each in enumerate(made):
        assert isinstance(each, Described)
        after = parsed(each.value, each.headers)
        data = after.get_data()
        tree = msgpack.unpackb(data) if number // 2 % 2 else data_of(after)
        assert (tree["number"], tree["prediction"]) == (number, number / 2)
        assert (after.get_id(), after.get_extension("relatedid")) == (f"in-2-{number}", f"e-{number}")


def test_a_result_that_cannot_be_written_is_an_error() -> None:
    record = event("structured", DATA["avro"][0], "application/avro")
    deep = Scored("m", 1, ("prediction",), [[[[[1.0]]]]])
    for sink in (Sink("out"), Sink("out", "result")):
        assert isinstance(result(record, sink, scored=deep, data="avro", schema=AVRO_TEXT), InvalidValueError)
    waits = Registry({1: RegisteredSchema("AVRO", AVRO_TEXT, schema_id=1)}, refusal=Pending("the registry is away"))
    record = event("structured", b"\0\0\0\0\1" + avro(TREE), "application/avro")
    for sink in (Sink("out"), Sink("out", "result")):
        assert result(record, sink, waits) == Pending("the registry is away")


@pytest.mark.parametrize(
    ("options", "sink", "said"),
    [
        ({"schema": AVRO_TEXT}, Sink("out"), "'schema' goes with 'data'"),
        ({"registry": True}, Sink("out"), "'registry' goes with 'data'"),
        ({"data": "xml"}, Sink("out"), "data 'xml': expected one of json, msgpack, avro, protobuf"),
        ({"data": "cloudevents"}, Sink("out"), "expected one of json"),
        ({"data": "json", "schema": "x"}, Sink("out"), "format json has no option 'schema'"),
        ({"data": "json"}, Sink("out", subjects="record"), "format json has no option 'subjects'"),
        ({"data": "avro", "schema": "x"}, Sink("out"), "schema"),
        ({"data": "avro", "schema": AVRO_TEXT, "message": "x"}, Sink("out"), "format avro has no option 'message'"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], sink: Sink, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        check(Format("cloudevents", **options), sink)


def test_valid_options_are_accepted_and_data_is_an_option_of_events_alone() -> None:
    check(Format("cloudevents"))
    check(Format("cloudevents"), Sink("out", subjects="record"))
    for name, (_, options) in DATA.items():
        check(Format("cloudevents", data=name, **options))
        with pytest.raises(InvalidValueError, match=f"format {name} has no option 'data'"):
            check(Format(name, data="json", **options))


def test_what_does_not_fit_the_given_data_is_refused_before_any_record() -> None:
    with pytest.raises(InvalidValueError, match="nothing"):
        EVENTS.reader(Format("cloudevents", data="avro", schema=AVRO_TEXT), [parse_path("nothing")], None, None)
    with pytest.raises(InvalidValueError, match="schema registry"):
        EVENTS.reader(Format("cloudevents", data="avro"), [parse_path("a")], None, None)


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("application/json", "json"), ("Application/JSON; charset=utf-8", "json"), ("application/vnd.x+json", "json"),
        ("application/x-msgpack", "msgpack"), (" application/avro ;a=b", "avro"), ("application/protobuf", "protobuf"),
        ("text/plain", None), ("", None), ("json", None),
    ],
)  # fmt: skip
def test_content_types_name_formats(content_type: str, name: str | None) -> None:
    assert format_of(content_type) == name


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
TREES = st.dictionaries(TEXTS.filter(lambda name: name != "fraud"), st.integers() | TEXTS | st.none(), max_size=4)
EXTENSIONS = st.dictionaries(st.from_regex(r"x[a-z0-9]{1,8}", fullmatch=True), TEXTS, max_size=4)


@given(TREES, EXTENSIONS, st.sampled_from(["json", "msgpack"]))
def test_enriched_events_differ_in_their_data_alone(tree: dict[str, Any], more: dict[str, str], name: str) -> None:
    encode: Callable[[Any], bytes] = msgpack.packb if name == "msgpack" else lambda each: json.dumps(each).encode()
    try:
        data = encode(tree)
    except OverflowError:
        return
    bound = {"binary": data, "structured": tree if name == "json" else data}
    for mode in ("binary", "structured"):
        record = event(mode, bound[mode], CONTENT_TYPES[name][0], **more)
        made = result(record, Sink("out", field="fraud"), data=name)
        after, before = parsed(made, record.headers), parsed(record.value or b"", record.headers)
        assert after.get_attributes() == before.get_attributes()
        found = after.get_data()
        found = msgpack.unpackb(found) if name == "msgpack" else data_of(after)
        assert found == tree | {"fraud": FIELDS}


def test_an_event_may_be_larger_than_a_request() -> None:
    large = {**TREE, "more": "x" * 3_000_000}
    document = read(event("structured", large), "a")
    assert isinstance(document, Document)
    assert list(document.values) == [1.5]
