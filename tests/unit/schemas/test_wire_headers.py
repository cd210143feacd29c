from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.codecs import JSON
from inferd.schemas.errors import InferenceError
from inferd.schemas.headers import (
    NO_HEADERS,
    PROPAGATED_BYTES_MAX,
    RequestHeaders,
    parse_headers,
    salvage_headers,
)
from inferd.schemas.limits import DEFAULT_LIMITS, Limits


def parse(*headers: tuple[str, bytes | None]) -> RequestHeaders:
    return parse_headers(headers, DEFAULT_LIMITS)


def rejection(*headers: tuple[str, bytes | None], limits: Limits = DEFAULT_LIMITS) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        parse_headers(headers, limits)
    return caught.value


def test_none() -> None:
    assert parse_headers((), DEFAULT_LIMITS) is NO_HEADERS
    assert parse_headers([], DEFAULT_LIMITS) is NO_HEADERS


def test_all_known_headers() -> None:
    assert parse(
        ("ce_id", b"e-1"),
        ("content-type", b"application/json"),
        ("x-other", b"\xff"),
        ("traceparent", b"00-not-a-trace"),
        ("reply-to", b"my.Topic_1-a"),
        ("deadline", b"1767322800123"),
        ("tracestate", b"a=b"),
        ("Correlation-Id", b"\x9f\x86"),
        ("priority", None),
    ) == RequestHeaders(
        codec=JSON,
        propagated=(
            ("ce_relatedid", b"e-1"),
            ("x-other", b"\xff"),
            ("traceparent", b"00-not-a-trace"),
            ("tracestate", b"a=b"),
            ("Correlation-Id", b"\x9f\x86"),
            ("priority", None),
        ),
        reply_to="my.Topic_1-a",
        deadline_ms=1_767_322_800_123,
        attributes=(("id", b"e-1"),),
    )


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b" application/json ",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"application/json; version=1",
    ],
)
def test_spellings_of_a_content_type(value: bytes) -> None:
    assert parse(("content-type", value)).codec is JSON


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text/json",
        b"application/vnd.oip.v2+json",
        b"application/json; charset=latin-1",
        b"application/json, application/msgpack",
        b"x" * 4_000,
    ],
)
def test_unsupported_content_types(value: bytes) -> None:
    error = rejection(("content-type", value))
    assert error.code == "unsupported_content_type"
    assert "application/msgpack" in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deadline", b""),
        ("deadline", b"soon"),
        ("deadline", b"-1"),
        ("deadline", b"1.5"),
        ("deadline", b"1e9"),
        ("deadline", b" 1"),
        ("deadline", "١".encode()),
        ("deadline", b"253402300800000"),
        ("deadline", b"9" * 4_000),
        ("reply-to", b""),
        ("reply-to", b"a/b"),
        ("reply-to", b".."),
        ("reply-to", b"a\n"),
        ("reply-to", b"a" * 250),
        ("reply-to", b"\xff"),
        ("content-type", b"\xff"),
        ("Deadline", b"soon"),
    ],
)
def test_invalid_values_name_the_header(name: str, value: bytes) -> None:
    error = rejection((name, value))
    assert (error.code, f"header {name.lower()}: " in error.message) == ("invalid_header", True), error.message


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE"])
def test_names_have_any_case(name: str) -> None:
    assert parse((name, b"application/json")) == RequestHeaders(codec=JSON)
    assert rejection((name, b"text/plain")).code == "unsupported_content_type"


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("content-type", b"application/json", b"application/msgpack"),
        ("Deadline", b"1", b"2"),
        ("reply-to", b"a", b"b"),
    ],
)
def test_a_repeated_header_is_rejected_if_its_values_differ(name: str, first: bytes, second: bytes) -> None:
    error = rejection((name, first), (name.lower(), second))
    assert (error.code, name.lower() in error.message) == ("invalid_header", True)
    assert parse((name, first), (name, None), (name.lower(), first)) == parse((name, first))


def test_repeated_trace_headers_are_propagated_unchanged() -> None:
    twice = (("traceparent", b"00-a-b-01"), ("x", b"1"), ("traceparent", b"00-a-c-01"), ("correlation-id", b""))
    assert parse(*twice) == RequestHeaders(propagated=twice)


def test_headers_of_the_request_or_of_inferd_are_not_propagated() -> None:
    reserved = ("Content-Encoding", "content-length", "ce_type", "CE_Source", "ce_relatedid", "inferd-worker")
    parsed = parse(*[(name, b"x") for name in reserved], ("ce_id", None), ("Inferd-Cache", None))
    assert parsed.propagated == ()
    assert parsed.attributes == (("type", b"x"), ("source", b"x"), ("relatedid", b"x"))


def test_known_headers_without_a_value_are_ignored() -> None:
    assert parse(("deadline", None), ("content-type", None), ("reply-to", None)) == NO_HEADERS


def test_bounds_hold_for_every_header() -> None:
    assert len(parse(*[("x", b"")] * 64).propagated) == 64
    for headers in ([("x", b"")] * 65, [("x", b"a" * 4_096)], [("x" * 4_097, None)], [("ä" * 2_049, b"")]):
        assert rejection(*headers).code == "invalid_header"


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(("x", "ä", "correlation-id", "Traceparent", "ce_id", "content-type", "inferd-a", "deadline")),
        st.none() | st.integers(0, 4_000).map(lambda size: b"1" * size),
    ),
    max_size=64,
)


@given(HEADERS)
def test_propagated_headers_are_limited_and_known_ones_come_first(headers: list[Any]) -> None:
    carried = salvage_headers(headers, DEFAULT_LIMITS).propagated
    expected = [
        ("ce_relatedid" if name == "ce_id" else name, value)
        for name, value in headers
        if name not in ("content-type", "inferd-a", "deadline") and (name != "ce_id" or value is not None)
    ]
    sizes = [len(name.encode()) + len(value or b"") for name, value in expected]
    kept = iter(expected)
    assert all(header in kept for header in carried)  # in their order
    room = PROPAGATED_BYTES_MAX - sum(len(name.encode()) + len(value or b"") for name, value in carried)
    assert room >= 0
    if sum(sizes) <= PROPAGATED_BYTES_MAX:
        assert list(carried) == expected
    else:
        others = [header for header in carried if header[0] in ("x", "ä")]
        named = [header for header in expected if header[0] not in ("x", "ä")]
        named_size = sum(len(name.encode()) + len(value or b"") for name, value in named)
        if named_size <= PROPAGATED_BYTES_MAX:
            assert [header for header in carried if header not in others] == named


def test_deadlines_from_the_epoch_to_the_year_9999() -> None:
    assert parse(("deadline", b"0")).deadline_ms == 0
    assert parse(("deadline", b"253402300799999")).deadline_ms == 253_402_300_799_999


def test_rejected_headers_are_read_as_far_as_possible() -> None:
    headers: list[tuple[str, bytes | None]] = [
        ("Content-Type", b"application/json"),
        ("deadline", b"soon"),
        ("reply-to", b"a"),
        ("traceparent", b"\xff"),
        ("correlation-id", b"c"),
        ("tracestate", b"a"),
        ("tracestate", b"b"),
        ("x", b"a" * 10_000),
    ]
    carried = (("traceparent", b"\xff"), ("correlation-id", b"c"), ("tracestate", b"a"), ("tracestate", b"b"))
    assert salvage_headers(headers, DEFAULT_LIMITS) == RequestHeaders(codec=JSON, propagated=carried)
    assert salvage_headers([("content-type", b"text/plain"), *headers[1:3]], DEFAULT_LIMITS) == NO_HEADERS
    both: list[tuple[str, bytes | None]] = [*headers[:1], ("content-type", b"application/msgpack")]
    assert salvage_headers(both, DEFAULT_LIMITS) == NO_HEADERS
    assert len(salvage_headers([("x", b"")] * 1_000, DEFAULT_LIMITS).propagated) == 64
    assert salvage_headers((), DEFAULT_LIMITS) == NO_HEADERS


names = st.sampled_from(
    ["ce_id", "CE_ID", "ce_type", "traceparent", "Correlation-Id", "inferd-x", "x" * 70, "Content-Length", "é"]
)


@given(st.lists(st.tuples(names, st.none() | st.binary(max_size=2_000)), max_size=12))
def test_accepted_and_rejected_headers_are_propagated_equally(headers: list[tuple[str, bytes | None]]) -> None:
    assert parse_headers(headers, DEFAULT_LIMITS).propagated == salvage_headers(headers, DEFAULT_LIMITS).propagated


def test_a_content_type_has_the_limits_of_other_headers() -> None:
    assert rejection(JSON.header, limits=Limits(header_bytes_max=20)).code == "invalid_header"
    assert rejection(JSON.header, limits=Limits(headers_max=0)).code == "invalid_header"
