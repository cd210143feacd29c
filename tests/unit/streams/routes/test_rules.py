"""Which topics routes may use, which routes contradict each other, and where records go in the sink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from aiokafka.partitioner import DefaultPartitioner

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.routes import Format, Route, Sink, Source, circle, conflict, in_order, is_own
from inferd.streams.routes.allowed import is_allowed, patterns_of, topics_refusal
from inferd.streams.routes.partitions import sink_partition
from inferd.streams.settings import RouteSettings, StreamSettings


def route(name: str, sources: str, sink: str, created_at: str | None = None) -> Route:
    return Route(name, Source(sources.split(","), Format("json")), "m", Sink(sink), created_at=created_at)


def test_patterns_belong_to_a_tenant() -> None:
    items = ("acme=orders.*", "beta=b", "plain")
    assert patterns_of(items, "acme", ("acme", "beta")) == ["orders.*"]
    assert patterns_of(items, "acme", ("acme",)) == ["orders.*", "plain"]
    assert is_allowed("orders.v1", ["x", "orders.*"])
    assert not is_allowed("my.orders.v1", ["orders.*"])
    assert not is_allowed("orders", [])


@pytest.mark.parametrize(
    ("topic", "own"),
    [
        ("ns.default.requests", True),
        ("ns.anything", True),
        ("group-default.jobs-changelog", True),
        ("__consumer_offsets", True),
        ("nsx.orders", False),
        ("orders", False),
    ],
)
def test_own_topics(topic: str, own: bool) -> None:
    assert is_own(topic, "ns", "group") is own


def test_a_worker_refuses_topics_by_name() -> None:
    settings = StreamSettings(KafkaConnection(), "w", Path(), namespace="ns", tenants=("acme", "beta"))
    allowed = replace(settings, routes=RouteSettings(("acme=in*",), ("acme=out",)))
    assert "INFERD_ROUTES_SOURCES" in (topics_refusal(route("r", "in", "out"), "acme", settings) or "")
    assert topics_refusal(route("r", "in,in2", "out"), "acme", allowed) is None
    assert "INFERD_ROUTES_SINKS" in (topics_refusal(route("r", "in", "other"), "acme", allowed) or "")
    assert "tenant beta" in (topics_refusal(route("r", "in", "out"), "beta", allowed) or "")
    assert "own" in (topics_refusal(route("r", "in", "ns.acme.results"), "acme", allowed) or "")


def test_a_topic_is_read_by_one_route_and_circles_are_found() -> None:
    first, second, third = route("a", "t1", "t2"), route("b", "t2,x", "t3"), route("c", "t3", "t1")
    assert conflict(second, [first]) is None
    assert "t1 is read by the route a" in (conflict(route("d", "y,t1", "z"), [first]) or "")
    assert "circle" in (conflict(third, [first, second]) or "")
    assert circle([first, second], first) is None


def test_the_order_of_routes_does_not_depend_on_how_they_were_read() -> None:
    routes = {
        "b": {"x": route("x", "a", "b", "2026-01-02")},
        "a": {n: route(n, n, "s", "2026-01-01") for n in ("q", "p")},
    }
    assert [each.name for _, each in in_order(routes)] == ["p", "q", "x"]


def test_partitions_of_the_sink() -> None:
    partitioner = DefaultPartitioner()
    for number in range(200):
        key = b"key-%d" % number
        assert sink_partition(key, 3, number, 4, 7) == partitioner(key, list(range(7)), list(range(7)))
        assert sink_partition(key, 3, number, 7, 7) == 3
    spread = {sink_partition(None, 0, offset, 1, 5) for offset in range(5)}
    assert spread == set(range(5))
    assert sink_partition(None, 2, 9, 1, 5) == sink_partition(None, 2, 9, 1, 5)


def test_routes_may_be_replaced_by_equal_ones() -> None:
    assert route("a", "x", "y") == msgspec.structs.replace(route("a", "x", "y"))
