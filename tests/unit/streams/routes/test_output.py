"""Output of routes: the headers of records of the sink, and what the sink rejects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import TopicPartition

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias
from inferd.schemas.routes import Format, Route, Source
from inferd.schemas.routes import Sink as RouteSink
from inferd.streams.inference import ModelCatalog, Outcome, Version
from inferd.streams.kafka import Destinations, TopicState
from inferd.streams.lane import DeadLetters, OutputBatch
from inferd.streams.routes import RouteScorer
from inferd.streams.routes.formats import Described, format_named, register, unregister
from inferd.streams.routes.output import RouteOutput, Sink
from tests.fixtures.lane import sum_model
from tests.unit.streams.routes.test_scoring import Record, record

HEADERS = (("trace", b"t"), ("ce_id", b"e-1"))


class PlacesFormat:
    """JSON whose results name the place of their record, in a header, too."""

    name = "places"
    reader: Any = format_named("json").reader

    def check(self, route: Route) -> None: ...

    def writer(self, options: Format, sink: RouteSink, schemas: Any) -> Any:
        return self

    def predictions(self, sources: Any, scored: Any) -> list[Described]:
        return [self._described(sources, index) for index in range(len(sources.records))]

    def failure(self, source: Any, failed: Any) -> Described:
        return self._described(source, 0)

    def _described(self, sources: Any, index: int) -> Described:
        place = sources.place_of(index)
        return Described(f"{place.source} {place.event_id} {place.timestamp}".encode(), (("id", b"%d" % place.offset),))


@pytest.fixture(autouse=True)
def _places_format() -> Iterator[None]:
    register(PlacesFormat())
    yield
    unregister("places")


def scorer(**fields: Any) -> RouteScorer:
    models = ModelCatalog()
    served = sum_model(1)
    models.put(Version(served.manifest, "ready", served=served))
    route = Route("r", Source(["in"], Format("places")), "sum", RouteSink("out", "result"), **fields)
    return RouteScorer(route, models, DEFAULT_LIMITS, "my group")


def outcome_of(scorer: RouteScorer, *work: tuple[int, list[Record]]) -> Outcome:
    batch = scorer.of_topic("in").prepare([*work], 0)
    for group in batch.groups:
        group.predict()
    return batch.finish()


def at(offset: int, value: Any = None) -> Record:
    return record(value or {"a": offset, "b": 1}, offset=offset, timestamp=offset * 10, headers=HEADERS)


def test_a_writer_knows_the_place_of_each_record_and_sets_its_headers() -> None:
    outcome = outcome_of(scorer(), (3, [at(7), at(9, b"{"), at(10)]), (5, []), (0, [at(7)]))
    assert outcome.values == [b"my%20group in-3-7 70", b"", b"my%20group in-3-10 100", b"my%20group in-0-7 70"]
    assert outcome.sink_headers == {0: (("id", b"7"),), 2: (("id", b"10"),), 3: (("id", b"7"),)}
    halves = [outcome_of(scorer(), (3, [at(7), at(9, b"{"), at(10)])), outcome_of(scorer(), (0, [at(7)]))]
    assert (halves[0] + halves[1]).sink_headers == outcome.sink_headers


def test_a_failure_that_goes_to_the_sink_has_its_place_and_headers() -> None:
    outcome = outcome_of(scorer(on_error="sink"), (3, [at(7), at(8, {"a": "text", "b": 1})]))
    assert isinstance(outcome.failures[1], InvalidValueError)
    assert outcome.values[1] == b"my%20group in-3-8 80"
    assert outcome.sink_headers[1] == (("id", b"8"),)


def filled(outcome: Outcome, records: list[Record], bytes_max: int = 10_000) -> OutputBatch:
    destinations = Destinations([TopicState("out", "sink", 4, 1, {"max.message.bytes": str(bytes_max)})])
    output = OutputBatch(records[-1].offset + 1, len(records), [])
    letters = DeadLetters("letters", "worker", destinations)
    sink = Sink("out", 4, 4, destinations)
    RouteOutput(output, TopicPartition("in", 3), sink, letters, 0, lambda _: None, "skip").fill(
        records, outcome, range(len(records))
    )
    return output


def test_records_have_the_headers_of_their_writer_or_else_of_their_source() -> None:
    records = [at(7), at(8)]
    described = outcome_of(scorer(), (3, records))
    assert filled(described, records).by_topic["out", 3] == [
        (b"k", b"my%20group in-3-7 70", [("id", b"7")]),
        (b"k", b"my%20group in-3-8 80", [("id", b"8")]),
    ]
    del described.sink_headers[0]
    assert [headers for _, _, headers in filled(described, records).by_topic["out", 3]] == [[*HEADERS], [("id", b"8")]]


def test_records_have_the_headers_of_the_alias_instead_of_those_of_their_source() -> None:
    served = sum_model(1)
    models = ModelCatalog()
    models.put(Version(served.manifest, "ready", served=served))
    models.put_alias("sum", "champion", Alias(version=1, revision=3))
    route = Route("r", Source(["in"], Format("json")), "sum", RouteSink("out", "result"))
    upstream = (("trace", b"t"), ("inferd-variant", b"canary"))
    records = [
        record({"a": 1, "b": 1}, offset=7, headers=upstream),
        record({"a": 1, "b": 1}, offset=8),
        record(b"{", offset=9),
    ]
    of_alias = [("inferd-alias-revision", b"3"), ("inferd-variant", b"champion")]
    for part in (records[:2], records):
        outcome = outcome_of(RouteScorer(route, models, DEFAULT_LIMITS, "my group"), (3, part))
        found = [headers for _, _, headers in filled(outcome, part).by_topic["out", 3]]
        assert found == [[("trace", b"t"), *of_alias], of_alias]


def test_the_size_of_a_record_counts_the_headers_that_are_written() -> None:
    records = [at(7)]
    outcome = outcome_of(scorer(), (3, records))
    assert ("out", 3) in filled(outcome, records, 300).by_topic
    outcome.sink_headers[0] = (("large", b"x" * 300),)
    rejected = filled(outcome, records, 300)
    assert ("out", 3) not in rejected.by_topic
    assert rejected.tally.errors == {"too_large": 1}
