"""Route records: paths, checks and their codec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.errors import InferenceError, InvalidIdError, InvalidValueError, MalformedError
from inferd.schemas.routes import (
    Format,
    Route,
    Sink,
    Source,
    check_route,
    decode_route,
    encode_route,
    parse_path,
    parse_route_key,
)

ROUTE = Route(
    "orders",
    Source(["orders.v1"], Format("json"), {"orders.v1": [5, 0]}),
    "m@champion",
    Sink("orders.scored", field="fraud"),
    {"amount": "order.amount", "country": 'customer["home.address"][0]'},
    {"channel": "web"},
)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a", ("a",)),
        ("order.items[0].price", ("order", "items", 0, "price")),
        ("a[0][1]", ("a", 0, 1)),
        ('a["b.c"].d', ("a", "b.c", "d")),
        ('["x y"]', ("x y",)),
        ('a["\\"q\\""]', ("a", '"q"')),
        ("größe.a-b", ("größe", "a-b")),
    ],
)
def test_paths(text: str, steps: tuple[Any, ...]) -> None:
    assert parse_path(text).steps == steps
    assert str(parse_path(text)) == text


def test_special_paths() -> None:
    assert (parse_path("$key").special, parse_path("$timestamp").special) == ("key", "timestamp")
    header = parse_path("$headers.x-tenant.id")
    assert (header.special, header.header, header.name) == ("header", "x-tenant.id", "x-tenant.id")
    assert parse_path("order.items[0]").name == "items"


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "[0]",
            "a[",
            "a[-1]",
            "a[01]",
            'a["b',
            "a b",
            "$",
            "$value",
            "$headers.",
            "a[x]",
        ],
        *["x" * 1_025, ".".join("x" * 33), 'a["\\ud800"]'],
    ],
)
def test_invalid_paths(text: str) -> None:
    with pytest.raises(InvalidValueError, match="path"):
        parse_path(text)


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_a_route_survives_its_codec(codec: Any) -> None:
    assert decode_route(encode_route(ROUTE, codec), codec=codec) == ROUTE
    assert encode_route(ROUTE, codec) == encode_route(msgspec.structs.replace(ROUTE), codec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../x"}, "route name"),
        ({"model": "m@@"}, "model_id"),
        ({"source": Source([], Format("json"))}, "0 topics"),
        ({"source": Source(["a", "a"], Format("json"))}, "different"),
        ({"source": Source(["a b"], Format("json"))}, "topic"),
        ({"source": Source(["orders.scored"], Format("json"))}, "own output"),
        ({"source": Source(["a"], Format("json"), {"b": [1]})}, "'b' is no topic"),
        ({"source": Source(["a"], Format("json"), {"a": [-1]})}, "negative"),
        ({"constants": {"amount": 1}}, "both"),
        ({"features": {"amount": "a..b"}}, "path"),
        ({"features": {"amount": "fraud.x"}}, "field that is added"),
        ({"outputs": []}, "outputs"),
        ({"sink": Sink("s", field="")}, "field"),
        ({"sink": Sink("s", carry={"a": "a"})}, "carried"),
        ({"sink": Sink("s", "result", "fraud")}, "no field 'fraud' is added in the mode result"),
        ({"sink": Sink("s", "result", carry={"version": "a"})}, "'version'"),
    ],
)
def test_invalid_routes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InferenceError, match=message):
        check_route(msgspec.structs.replace(ROUTE, **changes))


@pytest.mark.parametrize(
    "value", [None, b"", b"\xc1", b"{}", b'{"name":"x"}', MSGPACK.encode({"name": "x", "more": 1})]
)
def test_other_bytes_are_malformed(value: bytes | None) -> None:
    for codec in (MSGPACK, JSON):
        with pytest.raises(MalformedError, match="route"):
            decode_route(value, codec=codec)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(MalformedError, match="owner"):
        decode_route(MSGPACK.encode(msgspec.to_builtins(ROUTE) | {"owner": "x"}))


def test_keys() -> None:
    assert parse_route_key(b"orders") == "orders"
    for key in (None, b"", b"a/b", b"\xff"):
        with pytest.raises(MalformedError):
            parse_route_key(key)
    assert issubclass(InvalidIdError, InferenceError)
