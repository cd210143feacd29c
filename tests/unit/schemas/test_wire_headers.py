from __future__ import annotations

import pytest

from schemas.errors import InferenceError
from schemas.headers import NO_HEADERS, RequestHeaders, parse_headers, readable_headers
from schemas.limits import DEFAULT_LIMITS, Limits


def parse(*headers: tuple[str, bytes | None]) -> RequestHeaders:
    return parse_headers(headers, DEFAULT_LIMITS)


def refusal(*headers: tuple[str, bytes | None], limits: Limits = DEFAULT_LIMITS) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        parse_headers(headers, limits)
    return caught.value


def test_none() -> None:
    assert parse_headers((), DEFAULT_LIMITS) is NO_HEADERS
    assert parse_headers([], DEFAULT_LIMITS) is NO_HEADERS


def test_all_that_mean_something() -> None:
    assert parse(
        ("ce_id", b"e-1"),
        ("content-type", b"application/json"),
        ("x-other", b"\xff"),
        ("traceparent", b"00-not-a-trace"),
        ("reply-to", b"my.Topic_1-a"),
        ("deadline", b"1767322800123"),
        ("tracestate", b"a=b"),
        ("priority", b"9"),
        ("correlation-id", "ä".encode()),
    ) == RequestHeaders(
        encoding="json",
        passed_through=(
            ("ce_relatedid", b"e-1"),
            ("traceparent", b"00-not-a-trace"),
            ("tracestate", b"a=b"),
            ("correlation-id", "ä".encode()),
        ),
        reply_to="my.Topic_1-a",
        deadline_ms=1_767_322_800_123,
        priority=9,
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
    assert parse(("content-type", value)).encoding == "json"


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
    error = refusal(("content-type", value))
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
        ("priority", b"0"),
        ("priority", b"10"),
        ("priority", b"high"),
        ("reply-to", b""),
        ("reply-to", b"a/b"),
        ("reply-to", b".."),
        ("reply-to", b"a\n"),
        ("reply-to", b"a" * 250),
        ("reply-to", b"\xff"),
        ("content-type", b"\xff"),
        ("correlation-id", b"\xff"),
        ("traceparent", b"\xc3"),
        ("ce_id", b"\xed\xa0\x80"),
    ],
)
def test_invalid_values_name_the_header(name: str, value: bytes) -> None:
    error = refusal((name, value))
    assert (error.code, f"header {name}: " in error.message) == ("invalid_header", True), error.message


@pytest.mark.parametrize("name", ["content-type", "deadline", "priority", "reply-to", "traceparent", "ce_id"])
def test_a_repeated_header_is_refused_even_without_a_value(name: str) -> None:
    error = refusal((name, None), (name, None))
    assert (error.code, name in error.message) == ("invalid_header", True)


def test_others_may_be_repeated_and_undecodable() -> None:
    assert parse(("x", b"\xff"), ("x", None), ("Content-Type", b"\xff")) == NO_HEADERS


def test_a_header_without_value_says_nothing() -> None:
    assert parse(("deadline", None), ("content-type", None), ("traceparent", None)) == NO_HEADERS


def test_bounds_hold_for_every_header() -> None:
    assert parse(*[("x", b"a" * 4_095)] * 64) == NO_HEADERS
    for headers in ([("x", b"")] * 65, [("x", b"a" * 4_096)], [("x" * 4_097, None)], [("ä" * 2_049, b"")]):
        assert refusal(*headers).code == "invalid_header"


def test_deadlines_from_the_epoch_to_the_year_9999() -> None:
    assert parse(("deadline", b"0")).deadline_ms == 0
    assert parse(("deadline", b"253402300799999")).deadline_ms == 253_402_300_799_999


def test_what_can_be_read_of_refused_headers() -> None:
    headers: list[tuple[str, bytes | None]] = [
        ("content-type", b"application/json"),
        ("deadline", b"soon"),
        ("reply-to", b"a"),
        ("traceparent", b"\xff"),
        ("correlation-id", b"c"),
        ("tracestate", b"a"),
        ("tracestate", b"b"),
        ("x", b"a" * 10_000),
    ]
    expected = RequestHeaders(encoding="json", passed_through=(("correlation-id", b"c"),))
    assert readable_headers(headers, DEFAULT_LIMITS) == expected
    assert readable_headers([("content-type", b"text/plain"), *headers[1:4]], DEFAULT_LIMITS) == NO_HEADERS
    assert readable_headers((), DEFAULT_LIMITS) == NO_HEADERS
