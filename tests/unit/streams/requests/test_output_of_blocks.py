"""The output of requests in a block is that of the same requests in a list."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import numpy as np
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, SplitShare
from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import ModelCatalog, Outcome, Record, Scorer, Version, kernels_fault
from inferd.streams.kafka import UNCHECKED, OutgoingBlock
from inferd.streams.lane import OutputBatch
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.requests import BatchScoring, BatchSizer, RequestProcessor, Timing
from inferd.streams.requests.results import COLUMNS_MIN
from inferd.streams.settings import LaneSettings
from inferd.streams.telemetry import LaneMeasures
from tests.fixtures.lane import sum_model
from tests.fixtures.record_blocks import block_of

TOPICS = TenantTopics("inferd", "default")
TIMING = Timing(5_000, 12)
RESULTS = (TOPICS.name("results"), 0)


@dataclass(frozen=True)
class Request:
    value: bytes | None
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    offset: int = 0


def request(model: str, given_id: str | None, value: float) -> bytes:
    body = {"model_id": model, "input_data": [value, 1.0]} | ({} if given_id is None else {"id": given_id})
    return bytes(msgpack.packb(body))


HEADERS = st.sampled_from([(), (("correlation-id", b"7"),), (("correlation-id", b"8"),), (("reply-to", b"other"),)])
ANY_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["correlation-id", "X", "content-type", "deadline", "ce_x", "row-errors"]),
        st.sampled_from([None, b"", b"application/msgpack", b"9", b"6000", b"true"]) | st.binary(max_size=9),
    ),
    max_size=3,
).map(tuple)
OWN_HEADERS = st.binary(min_size=1, max_size=9).map(lambda own: (("correlation-id", own), ("deadline", b"6000")))
"""Each request has its own."""
VALUES = st.builds(
    request, st.sampled_from(["sum:1", "sum@split", "missing"]), st.sampled_from([None, "a", "b"]), st.floats(-9, 9)
)


def requests(headers: st.SearchStrategy[tuple[tuple[str, bytes | None], ...]]) -> st.SearchStrategy[list[Request]]:
    keys, stamps = st.sampled_from([None, b"", b"k", b"other"]), st.sampled_from([0, 4_000, 4_990, 6_000])
    return st.lists(st.builds(Request, VALUES, keys, headers, stamps), min_size=1, max_size=20)


def alike(
    model: str,
    headers: st.SearchStrategy[tuple[tuple[str, bytes | None], ...]],
    keys: Sequence[bytes | None] = (None, b"", b"k"),
    values: Sequence[bytes | None] = (),
) -> st.SearchStrategy[list[Request]]:
    """Requests whose results stay columns: none goes to another topic."""
    good = st.builds(request, st.just(model), st.sampled_from(["a", "b"]), st.floats(-9, 9))
    given = good if not values else good | st.sampled_from(values)
    stamps = st.sampled_from([0, 4_000, 4_990])
    return st.lists(
        st.builds(Request, given, st.sampled_from(keys), headers, stamps), min_size=COLUMNS_MIN, max_size=40
    )


USUAL = st.sampled_from(["sum:1", "sum@champion", "sum@split"]).flatmap(
    lambda model: HEADERS.filter(lambda headers: ("reply-to", b"other") not in headers).flatmap(
        lambda headers: alike(model, st.just(headers))
    )
)


FAILING = alike("sum:1", OWN_HEADERS, [None, b"", b"k", b"k" * 5_000], values=[None, b"", b"garbage", b"\x81"])
"""Requests with headers of their own, some of which are poison records or have a key that is too long."""


def processor() -> RequestProcessor:
    catalog = ModelCatalog()
    for number in (1, 2):
        served = sum_model(number)
        catalog.put(Version(served.manifest, "ready", served=served))
    catalog.put_alias("sum", "champion", Alias(version=1, revision=4))
    catalog.put_alias("sum", "split", Alias(split=[SplitShare(1, 1), SplitShare(2, 1)]))
    measures = LaneMeasures()
    scoring = BatchScoring(measures, BatchSizer(LaneSettings()), PredictionRunner("w", measures, 1e9), time.time)
    return RequestProcessor(TOPICS, Scorer(catalog, DEFAULT_LIMITS), "w", UNCHECKED, scoring)


def outcome_of(made: RequestProcessor, work: Sequence[tuple[int, Any]], marks: bytes) -> Outcome:
    batch = made.scorer.prepare(work, 5_000)
    for group in batch.groups:
        group.predict()
    return replace(batch.finish(), cache_marks=marks)


def written(
    made: RequestProcessor, records: list[Record], marks: bytes, *, block: bool, first: int = 0
) -> list[OutputBatch]:
    """The output of the `first` records in one partition, and of the others in another one."""
    parts = [part for part in (records[:first], records[first:]) if part]
    given_as = [block_of(part) if block else part for part in parts]
    outcome = outcome_of(made, [*enumerate(given_as)], marks)
    topic = TOPICS.name("requests")
    return made.results.outputs(
        [(TopicPartition(topic, number), each) for number, each in enumerate(given_as)], outcome, TIMING
    )


@given(requests(HEADERS) | requests(ANY_HEADERS) | USUAL | FAILING, st.booleans(), st.integers(0, 20))
def test_the_output_of_a_block_is_that_of_a_list(given_requests: list[Request], cached: bool, first: int) -> None:
    records: list[Record] = [replace(each, offset=offset) for offset, each in enumerate(given_requests)]
    marks = bytes(n % 3 for n in range(len(records))) if cached else b""
    every, those = (written(processor(), records, marks, block=block, first=first) for block in (False, True))
    for expected, found in zip(every, those, strict=True):
        assert {place: list(each) for place, each in found.by_topic.items()} == expected.by_topic
        for field in ("next_offset", "records", "timestamps", "tally", "replies"):
            assert getattr(found, field) == getattr(expected, field)


@given(USUAL | FAILING)
def test_usual_results_of_a_block_stay_columns(given_requests: list[Request]) -> None:
    if kernels_fault() is None:
        records: list[Record] = [replace(each, offset=offset) for offset, each in enumerate(given_requests)]
        (output,) = written(processor(), records, b"", block=True)
        assert isinstance(output.by_topic[RESULTS], OutgoingBlock)


def test_a_record_added_to_a_block_makes_it_a_list() -> None:
    records: list[Record] = [Request(request("sum:1", "a", float(n)), b"k", (), 4_000, n) for n in range(COLUMNS_MIN)]
    (output,) = written(processor(), records, b"", block=True)
    before = list(output.by_topic[RESULTS])
    output.add(*RESULTS, (None, b"more", []))
    assert output.by_topic[RESULTS] == [*before, (None, b"more", [])]
    assert np.shape(output.timestamps) == (COLUMNS_MIN,)


async def test_http_requests_beside_many_records_leave_them_columns() -> None:
    made = processor()
    asked = made.direct.ask(request("sum:1", "over-http", 2.0), (), 4_000)
    records: list[Record] = [Request(request("sum:1", "a", float(n)), b"k", (), 4_000, n) for n in range(COLUMNS_MIN)]
    (outputs,) = await made.process([(TopicPartition(TOPICS.name("requests"), 0), block_of(records))])
    assert asked.answer.result().value == msgpack.packb(
        {**msgpack.unpackb(list(outputs[0].by_topic[RESULTS])[2][1] or b""), "id": "over-http"}
    )
    if kernels_fault() is None:
        assert isinstance(outputs[0].by_topic[RESULTS], OutgoingBlock)
    assert (made.counters.direct, made.counters.requests_in) == (1, 1)
