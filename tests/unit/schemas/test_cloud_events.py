"""CloudEvents: attributes, both modes, and times, against the package `cloudevents`."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.cloud_events import (
    Attribute,
    Place,
    attributes_of_headers,
    attributes_of_result,
    decode_event,
    encode_event,
    headers_of_attributes,
    is_event,
    replace_data,
    result_attributes,
    rfc3339,
)
from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.errors import InferenceError, InvalidHeaderError
from inferd.schemas.limits import DEFAULT_LIMITS

REQUIRED = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.created"}
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda name: name not in ("data", "time", *REQUIRED))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
times = st.integers(0, 253_402_300_799).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
extensions = st.dictionaries(names.filter(lambda name: name not in ("subject", "datacontenttype", "dataschema")), texts)


@given(extensions, times, st.dictionaries(texts, st.integers() | texts) | st.binary(min_size=1))
def test_events_of_the_package_in_structured_mode(more: dict[str, str], time: datetime, data: Any) -> None:
    event = CloudEvent(attributes={**REQUIRED, **more, "time": time}, data=data)
    read = decode_event(JSONFormat().write(event), DEFAULT_LIMITS)
    assert {name: read.attributes[name] for name in (*REQUIRED, *more)} == {**REQUIRED, **more}
    assert read.is_json is not isinstance(data, bytes)
    assert read.data is not None
    assert (json.loads(read.data) if read.is_json else read.data) == data


@given(extensions, st.binary(min_size=1) | st.dictionaries(texts, texts))
def test_structured_events_are_read_by_the_package(more: dict[str, str], data: Any) -> None:
    as_json = isinstance(data, dict)
    value = json.dumps(data).encode() if as_json else data
    data_type = "application/json" if as_json else "application/msgpack"
    read = JSONFormat().read(CloudEvent, encode_event({**REQUIRED, **more}, value, data_type))
    assert read.get_data() == data
    assert read.get_datacontenttype() == data_type
    assert {name: read.get_attributes()[name] for name in more} == more


@given(extensions)
def test_headers_are_those_of_the_attributes(more: dict[str, str]) -> None:
    headers = headers_of_attributes({**REQUIRED, **more})
    assert attributes_of_headers([(name.removeprefix("ce_"), value) for name, value in headers]) == {
        **REQUIRED,
        **more,
    }


BAD: dict[str, tuple[dict[str, str | None], str]] = {
    "no specversion": ({"specversion": None}, "specversion is missing"),
    "no id": ({"id": None}, "id is missing"),
    "an empty id": ({"id": ""}, "id is missing or empty"),
    "no source": ({"source": None}, "source is missing"),
    "no type": ({"type": None}, "type is missing"),
    "another version": ({"specversion": "0.3"}, "only '1.0' is known"),
    "a time of no format": ({"time": "yesterday"}, "RFC 3339"),
    "an empty subject": ({"subject": ""}, "subject is not a string, or is empty"),
    "a capital letter": ({"Subject": "x"}, "only the characters a-z"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_event_is_rejected_in_both_modes(name: str) -> None:
    changes, said = BAD[name]
    attributes = {key: value for key, value in {**REQUIRED, **changes}.items() if value is not None}
    with pytest.raises(InvalidHeaderError, match=said):
        attributes_of_headers([(key, value.encode()) for key, value in attributes.items()])
    with pytest.raises(InferenceError) as caught:
        decode_event(json.dumps({**attributes, "data": {}}).encode(), DEFAULT_LIMITS)
    assert (caught.value.code, said in caught.value.message) == ("malformed", True), caught.value.message


def test_headers_that_are_there_twice_or_are_no_text_are_rejected() -> None:
    headers = [(key, value.encode()) for key, value in REQUIRED.items()]
    with pytest.raises(InvalidHeaderError, match="ce_id appears twice"):
        attributes_of_headers([*headers, ("id", b"e-1")])
    with pytest.raises(InvalidHeaderError, match="ce_x: not UTF-8"):
        attributes_of_headers([*headers, ("x", b"\xff")])


TEXT = json.dumps(REQUIRED)[:-1]
BAD_TEXTS = {
    "no JSON": (b"\xc1", "malformed", "byte"),
    "nothing": (b"", "malformed", "an empty value"),
    "no object": (b"[]", "malformed", "CloudEvent"),
    "an attribute twice": (f'{TEXT}, "id": "e-1"}}'.encode(), "malformed", "twice"),
    "an attribute that is an object": (f'{TEXT}, "x": {{}}}}'.encode(), "malformed", "x is neither a string"),
    "a source that is a number": (
        b'{"specversion": "1.0", "id": "1", "source": 1, "type": "t"}', "malformed", "source is not a string",
    ),
    "both kinds of data": (f'{TEXT}, "data": 1, "data_base64": "AA=="}}'.encode(), "malformed", "both data"),
    "no base64": (f'{TEXT}, "data_base64": "A"}}'.encode(), "malformed", "data_base64 is not base64"),
    "base64 with a space": (f'{TEXT}, "data_base64": "AA =="}}'.encode(), "malformed", "data_base64 is not base64"),
    "base64 that is a number": (f'{TEXT}, "data_base64": 1}}'.encode(), "malformed", "data_base64 is not base64"),
    "nested too deep": (f'{TEXT}, "data": {"[" * 100_000}'.encode(), "too_deep", "deeper"),
    "too large": (b" " * 1_048_577, "too_large", "at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_value_that_is_no_event_is_rejected(name: str) -> None:
    value, code, said = BAD_TEXTS[name]
    with pytest.raises(InferenceError) as caught:
        decode_event(value, DEFAULT_LIMITS)
    assert (caught.value.code, said in caught.value.message) == (code, True), caught.value.message


def test_data_may_be_missing_and_attributes_null() -> None:
    for more in ("", ', "data": null', ', "subject": null'):
        read = decode_event(f"{TEXT}{more}}}".encode(), DEFAULT_LIMITS)
        assert (read.data, read.attributes) == (None, REQUIRED)


def test_data_keeps_its_bytes() -> None:
    data = b'{"a" : 1e400, "b":[ 1,2 ]}'
    assert decode_event(TEXT.encode() + b', "data": ' + data + b"}", DEFAULT_LIMITS).data == data
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert decode_event(f'{TEXT}, "data_base64": "{encoded}"}}'.encode(), DEFAULT_LIMITS).data == b"\x00\xff"


def test_an_id_alone_makes_no_event() -> None:
    assert not is_event(["id", "time", "x"])
    assert all(is_event([name]) for name in ("specversion", "source", "type"))


@given(st.integers(0, 253_402_300_799_999))
def test_times_are_those_of_datetime(timestamp_ms: int) -> None:
    seconds, ms = divmod(timestamp_ms, 1_000)
    expected = datetime.fromtimestamp(seconds, UTC).replace(microsecond=ms * 1_000)
    assert rfc3339(timestamp_ms) == expected.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("timestamp_ms", [-1, -(10**15), 253_402_300_800_000])
def test_no_time_for_a_record_without_a_timestamp(timestamp_ms: int) -> None:
    assert rfc3339(timestamp_ms) is None


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=str)
def test_the_attributes_of_results(codec: Any) -> None:
    place = Place("inferd", "inferd.default.requests", 3, 17, 1_767_322_800_123)
    prediction = codec.encode({"id": "r", "model_id": "churn", "version": 2, "digest": "ab", "prediction": [1]})
    assert attributes_of_result(place, prediction, codec, {}) == {
        "specversion": "1.0", "id": "inferd.default.requests-3-17", "source": "inferd",
        "type": "ai.inferd.prediction.v1", "subject": "churn", "time": "2026-01-02T03:00:00.123Z",
    }  # fmt: skip
    failure = codec.encode({"id": "r", "model_id": "churn@next", "error": {"code": "c", "message": "m"}})
    said = attributes_of_result(msgspec.structs.replace(place, timestamp=-1), failure, codec, {})
    assert (said["type"], said["subject"], "time" in said) == ("ai.inferd.error.v1", "churn", False)
    unknown = codec.encode({"id": "r", "model_id": None, "error": {"code": "c", "message": "m"}})
    assert "subject" not in attributes_of_result(place, unknown, codec, {})


def test_results_have_the_extensions_of_their_request_except_those_of_its_data() -> None:
    place = Place("inferd", "requests", 0, 1, 0)
    kept: dict[str, Attribute] = {"traceparent": "00-ab", "sampledrate": 30, "urgent": True, "sequence": "7"}
    of_request: dict[str, Attribute] = {
        **REQUIRED, "subject": "order 7", "time": "2026-01-02T03:00:00Z", "dataschema": "/s", "datacontenttype": "x/y",
        "dataref": "s3://x", "relatedid": "other",
    }  # fmt: skip
    own = result_attributes(place, "m", {}, failed=False)
    assert result_attributes(place, "m", of_request | kept, failed=False) == own | kept
    headers = dict(headers_of_attributes(result_attributes(place, "m", of_request | kept, failed=False)))
    assert (headers["ce_sampledrate"], headers["ce_urgent"], headers["ce_subject"]) == (b"30", b"true", b"m")


def test_extensions_that_do_not_fit_are_dropped() -> None:
    of_request: dict[str, Attribute] = {**REQUIRED, "first": "ä" * 8_000, "second": "x" * 400, "third": "x" * 300}
    found = result_attributes(Place("g", "t", 0, 1, 0), None, of_request, failed=True)
    assert found.keys() & of_request.keys() == {*REQUIRED, "first", "third"}


WHITE_SPACE = st.text(" \t\r\n", max_size=3)
MEMBER_VALUES = texts.map(json.dumps) | st.sampled_from(["true", "12", "null", '"{\\"data\\": 1, "'])
JSON_DATA = st.recursive(
    texts | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
)


def spelled(name: str, escaped: bool) -> str:
    """A name as JSON, with an escape if there should be one."""
    return f'"\\u{ord(name[0]):04x}{name[1:]}"' if escaped else f'"{name}"'


@st.composite
def structured_events(draw: st.DrawFn, name: str, data: str) -> tuple[str, str]:
    """The text of an event before and after its data, with members in any order and any white space."""
    more = draw(st.dictionaries(names.filter(lambda name: name not in TEXTUAL), MEMBER_VALUES, max_size=4))
    members = list({**{key: json.dumps(value) for key, value in REQUIRED.items()}, **more}.items())
    members.insert(draw(st.integers(0, len(members))), (name, data))
    texts_of = []
    for key, value in draw(st.permutations(members)):
        space = [draw(WHITE_SPACE) for _ in range(4)]
        texts_of.append((key, f"{space[0]}{spelled(key, draw(st.booleans()))}{space[1]}:{space[2]}", value, space[3]))
    at = [key for key, *_ in texts_of].index(name)
    before, after = texts_of[:at], texts_of[at + 1 :]
    head = "".join("".join(each[1:]) + "," for each in before) + texts_of[at][1]
    tail = texts_of[at][3] + "".join("," + "".join(each[1:]) for each in after)
    return f"{draw(WHITE_SPACE)}{{{head}", f"{tail}}}{draw(WHITE_SPACE)}"


TEXTUAL = ("subject", "datacontenttype", "dataschema")


@given(st.data(), JSON_DATA.filter(lambda data: data is not None), JSON_DATA)
def test_other_data_is_all_that_changes_in_an_event(draw: st.DataObject, data: Any, other: Any) -> None:
    text = json.dumps(data, indent=draw.draw(st.none() | st.just(1)))
    before, after = draw.draw(structured_events("data", text))
    event = (before + text + after).encode()
    read = decode_event(event, DEFAULT_LIMITS)
    assert read.data == text.encode()
    encoded = json.dumps(other).encode()
    assert replace_data(event, encoded) == before.encode() + encoded + after.encode()


@given(st.data(), st.binary(), st.binary())
def test_other_bytes_are_all_that_changes_in_an_event(draw: st.DataObject, data: bytes, other: bytes) -> None:
    text = json.dumps(base64.b64encode(data).decode())
    before, after = draw.draw(structured_events("data_base64", text))
    event = (before + text + after).encode()
    assert decode_event(event, DEFAULT_LIMITS).data == data
    replaced = replace_data(event, other)
    assert replaced == before.encode() + b'"' + base64.b64encode(other) + b'"' + after.encode()
    assert decode_event(replaced, DEFAULT_LIMITS).data == other


def test_a_name_that_does_not_print_is_escaped_in_the_error() -> None:
    with pytest.raises(InvalidHeaderError) as caught:
        attributes_of_headers([("\udca2\n", b"\xff")])
    assert caught.value.message.isprintable()
