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
    Place,
    attributes_of_headers,
    decode_event,
    encode_event,
    headers_of_attributes,
    is_event,
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
    assert result_attributes(place, prediction, codec) == {
        "specversion": "1.0", "id": "inferd.default.requests-3-17", "source": "inferd",
        "type": "ai.inferd.prediction.v1", "subject": "churn", "time": "2026-01-02T03:00:00.123Z",
    }  # fmt: skip
    failure = codec.encode({"id": "r", "model_id": "churn@next", "error": {"code": "c", "message": "m"}})
    said = result_attributes(msgspec.structs.replace(place, timestamp=-1), failure, codec)
    assert (said["type"], said["subject"], "time" in said) == ("ai.inferd.error.v1", "churn", False)
    unknown = codec.encode({"id": "r", "model_id": None, "error": {"code": "c", "message": "m"}})
    assert "subject" not in result_attributes(place, unknown, codec)


def test_a_name_that_does_not_print_is_escaped_in_the_error() -> None:
    with pytest.raises(InvalidHeaderError) as caught:
        attributes_of_headers([("\udca2\n", b"\xff")])
    assert caught.value.message.isprintable()
