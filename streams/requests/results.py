"""The records of results of requests to one tenant, with their headers; dead letters; replies to other topics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np
from aiokafka import TopicPartition
from numpy.typing import NDArray

from inferd.schemas.codecs import MSGPACK, Codec
from inferd.schemas.errors import InferenceError, ModelServingError
from inferd.schemas.headers import NO_HEADERS, PropagatedHeaders, RequestHeaders
from inferd.schemas.limits import Limits
from inferd.schemas.requests import encode_failure_for
from inferd.schemas.topics import TenantTopics
from inferd.streams.group import Records
from inferd.streams.inference import (
    CACHE_HIT,
    CACHE_MISS,
    UNDECODABLE,
    AliasHeaders,
    Outcome,
    RecordBlock,
    Spans,
    record_keys,
)
from inferd.streams.kafka import (
    Destinations,
    HeaderColumns,
    HeaderList,
    Outgoing,
    OutgoingBlock,
    OutgoingColumns,
    result_record_bytes_max,
)
from inferd.streams.lane import DeadLetters, OutputBatch, Work, timestamps_of
from inferd.streams.telemetry import Tally

VersionOf = Callable[[str | None, bytes | None], tuple[str, int] | None]
"""The model id and version that a reference means for a key; None if they are not deployed."""
FurtherHeaders = Sequence[tuple[Sequence[AliasHeaders], NDArray[Any]]]
"""Headers of some results, and which of them each result has."""
GivenHeaders = tuple[Sequence[RequestHeaders], NDArray[np.int64]]
"""The parsed headers of requests that differ, and which of them each request has."""
COLUMNS_MIN = 16
"""From so many results of a micro-batch on, columns take less time than objects."""
QUEUE_US = "inferd-queue-us"
CACHE_HEADERS: dict[int, tuple[str, bytes | None]] = {
    CACHE_MISS: ("inferd-cache", b"miss"),
    CACHE_HIT: ("inferd-cache", b"hit"),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Start and duration of the scoring of a micro-batch."""

    started_ms: int
    """Unix milliseconds."""
    infer_us: int


class ResultWriter:
    """Makes the output of scored requests of one tenant."""

    def __init__(
        self, topics: TenantTopics, worker_id: str, destinations: Destinations, limits: Limits, version_of: VersionOf
    ) -> None:
        """`destinations`: limits of the topics for results, replies and dead letters."""
        self._results = topics.name("results")
        self._dead_letters = DeadLetters(topics.name("dead-letters"), worker_id, destinations)
        self._worker = ("inferd-worker", worker_id.encode())
        self._destinations = destinations
        self._key_bytes_max = limits.key_bytes_max
        self._result_bytes_max = result_record_bytes_max(limits)
        self._version_of = version_of

    def topics(self, number: int) -> Iterable[TopicPartition]:
        """The partitions that results of partition `number` are written to."""
        yield TopicPartition(self._results, number)
        yield TopicPartition(self._dead_letters.topic, number)
        for topic in self._destinations.reply_to:
            yield TopicPartition(topic, number % max(1, self._destinations[topic].partitions))

    def outputs(self, work: Work, outcome: Outcome, timing: Timing) -> list[OutputBatch]:
        """The output of each part of `work`, in order; the outcome may have further records behind theirs."""
        ends = [*accumulate(len(records) for _, records in work)]
        spans = [range(end - len(records), end) for end, (_, records) in zip(ends, work, strict=True)]
        stamps = [timestamps_of(records, timing.started_ms) for _, records in work]
        columns, elsewhere = self._columns(outcome, stamps, timing), _answered_elsewhere(outcome)
        return [
            self._output(
                tp, records, timestamps, outcome, span, timing, None if elsewhere.intersection(span) else columns
            )
            for (tp, records), timestamps, span in zip(work, stamps, spans, strict=True)
        ]

    def _output(
        self,
        tp: TopicPartition,
        records: Records,
        timestamps: Sequence[int],
        outcome: Outcome,
        span: range,
        timing: Timing,
        columns: OutgoingColumns | None,
    ) -> OutputBatch:
        """The output of `records` of partition `tp`, in order; `span` is their range in `outcome` and in `columns`."""
        values = outcome.values[span.start : span.stop]
        n_bytes = values.n_bytes if isinstance(values, Spans) else sum(map(len, values))
        output = OutputBatch(
            records[-1].offset + 1, len(records), timestamps, Tally(results=len(records), bytes_out=n_bytes)
        )
        if columns is not None:
            output.by_topic[self._results, tp.partition] = OutgoingBlock(columns, span)
            self._add_failures(output, tp, records, outcome, span, outcome.failures)
            return output
        usual = self._usual_headers(timestamps, timing)
        results = _results(record_keys(records), values, timestamps, usual, _further_headers(outcome, span))
        output.by_topic[self._results, tp.partition] = results
        replied = self._apply_headers(results, outcome, span) if outcome.headers else {}
        for place in self._too_long_keys(records, outcome, span):
            results[place] = (None, *results[place][1:])
        rejected = self._reject(results, outcome, replied, span)
        self._add_failures(output, tp, records, outcome, span, outcome.failures | rejected)
        self._move_replies(output, tp, results, replied)
        return output

    def _columns(self, outcome: Outcome, stamps: Sequence[Sequence[int]], timing: Timing) -> OutgoingColumns | None:
        """The results of all records; None if they are few, no columns, or too large for their topic."""
        if outcome.block is None or len(outcome.block) < COLUMNS_MIN or not self._results_fit:
            return None
        headers = self._header_columns(outcome, np.array([*chain(*stamps)], np.int64), timing)
        return OutgoingColumns(self._keys(outcome.block, outcome), Spans.of(outcome.values), headers)

    def _usual_headers(self, timestamps: Sequence[int], timing: Timing) -> dict[int, HeaderList]:
        """Headers of a result by the timestamp of its request: many requests share one. The content-type is first."""
        return {
            timestamp: [
                MSGPACK.header,
                self._worker,
                (QUEUE_US, b"%d" % (max(0, timing.started_ms - timestamp) * 1000)),
                _infer_us(timing),
            ]
            for timestamp in set(timestamps)
        }

    def _header_columns(self, outcome: Outcome, stamps: NDArray[np.int64], timing: Timing) -> HeaderColumns:
        """All headers of the results. `stamps`: int64 (records,), Unix milliseconds."""
        span = range(len(stamps))
        headers, kinds = _given_headers(outcome, span)
        before = [[each.codec.header, *each.propagated] for each in headers]
        after = [[_infer_us(timing)] for _ in headers]
        for added, marks in _further_headers(outcome, span):
            pairs, kinds = np.unique(kinds * len(added) + marks, return_inverse=True)
            places = [divmod(pair, len(added)) for pair in pairs.tolist()]
            before = [before[kind] for kind, _ in places]
            after = [[*after[kind], *added[mark]] for kind, mark in places]
        waited_us = np.maximum(timing.started_ms - stamps, 0) * 1000
        return HeaderColumns(
            np.ascontiguousarray(kinds, np.int64),
            before,
            outcome.propagated,
            [self._worker],
            QUEUE_US,
            waited_us,
            after,
        )

    def _keys(self, records: RecordBlock, outcome: Outcome) -> Spans:
        """The keys of the results: null where that of the record is too long for a result."""
        keys = records.key_spans()
        if places := self._too_long_keys(records, outcome, range(len(records))):
            ends = keys.ends.copy()
            ends[places] = keys.starts[places] - 1
            return Spans(keys.content, keys.starts, ends)
        return keys

    @property
    def _results_fit(self) -> bool:
        """Whether the results topic takes the largest result."""
        return self._destinations.bytes_max(self._results) >= self._result_bytes_max

    def _add_failures(
        self,
        output: OutputBatch,
        tp: TopicPartition,
        records: Records,
        outcome: Outcome,
        span: range,
        failures: dict[int, ModelServingError],
    ) -> None:
        """Counts failed records, and adds dead letters for those that could not be decoded."""
        for index in sorted(index for index in failures if index in span):
            error = failures[index]
            record = records[index - span.start]
            output.tally.fail(error.code, self._version_of(outcome.asked.get(index), record.key))
            if isinstance(error, UNDECODABLE):
                self._dead_letters.add(output, record, tp, error)

    def _reject(
        self, results: list[Outgoing], outcome: Outcome, replied: dict[int, str], span: range
    ) -> dict[int, InferenceError]:
        """Replaces each result that its topic would reject by an error; returns these errors by record index.

        If the topic would also reject the error, the result stays. In that case the topic rejects everything, and the
        partition's offsets are held.
        """
        rejected = {}
        for place in list(replied if self._results_fit else range(len(results))):
            topic = replied.get(place, self._results)
            if (error := self._destinations.rejection(topic, results[place])) is None:
                continue
            key, value, headers = results[place]
            others = [header for header in headers if header not in CACHE_HEADERS.values()]
            answer: Outgoing
            if (reply := outcome.replies.get(span[place])) is not None:
                failed = reply.failed(error)
                answer = (key, failed.value, [*failed.headers, *others[len(reply.headers) :]])
            else:
                codec = outcome.headers.get(span[place], NO_HEADERS).codec
                answer = (key, encode_failure_for(value or b"", codec, error), others)
            if place in replied or self._destinations.rejection(self._results, answer) is None:
                results[place] = answer
                rejected[span[place]] = error
                replied.pop(place, None)
        return rejected

    def _too_long_keys(self, records: Records, outcome: Outcome, span: range) -> list[int]:
        """Indexes of failed records whose key is too long for a result."""
        places = (index - span.start for index in outcome.failures if index in span)
        return [place for place in places if len(records[place].key or b"") > self._key_bytes_max]

    def _apply_headers(self, results: list[Outgoing], outcome: Outcome, span: range) -> dict[int, str]:
        """Adds headers that requests propagate or request; returns the `reply-to` topic of results that have one."""
        replied = {}
        shared: dict[tuple[int, Codec, PropagatedHeaders], HeaderList] = {}
        for place, (index, (key, value, usual)) in enumerate(zip(span, list(results), strict=True)):
            headers = outcome.headers.get(index)
            if headers is None:
                continue
            if headers.reply_to is not None:
                replied[place] = headers.reply_to
            propagated = outcome.propagated_to(index)
            if (reply := outcome.replies.get(index)) is not None:
                results[place] = (key, value, [*reply.headers, *propagated, *usual[1:]])
                continue
            # Most results of a micro-batch have the same headers: they share one list.
            alike = (id(usual), headers.codec, propagated)
            given = shared.get(alike)
            if given is None:
                given = shared[alike] = [headers.codec.header, *propagated, *usual[1:]]
            results[place] = (key, value, given)
        return replied

    def _move_replies(
        self, output: OutputBatch, tp: TopicPartition, results: list[Outgoing], replied: dict[int, str]
    ) -> None:
        """Moves results with a `reply-to` topic to that topic."""
        for place, topic in replied.items():
            output.add(topic, tp.partition % self._destinations[topic].partitions, results[place])
            output.replies.add(topic)
        for place in sorted(replied, reverse=True):
            del results[place]


def _infer_us(timing: Timing) -> tuple[str, bytes | None]:
    return "inferd-infer-us", b"%d" % timing.infer_us


def _given_headers(outcome: Outcome, span: range) -> GivenHeaders:
    found: Sequence[RequestHeaders | None] = [*map(outcome.headers.get, span)] if outcome.headers else [None]
    if found.count(found[0]) == len(found):
        return [found[0] or NO_HEADERS], np.zeros(len(span), np.int64)
    numbers: dict[int, int] = {}  # by identity: the requests of a micro-batch share objects
    kinds = np.array([numbers.setdefault(id(headers), len(numbers)) for headers in found], np.int64)
    by_id = {id(headers): headers or NO_HEADERS for headers in found}
    return [by_id[each] for each in numbers], kinds


def _answered_elsewhere(outcome: Outcome) -> set[int]:
    """The records whose result goes to another topic, or is in another protocol."""
    return {*outcome.replies, *(index for index, headers in outcome.headers.items() if headers.reply_to is not None)}


def _further_headers(outcome: Outcome, span: range) -> FurtherHeaders:
    part, further = slice(span.start, span.stop), list[tuple[Sequence[AliasHeaders], NDArray[Any]]]()
    if outcome.variants.marks is not None:
        further.append(([kind.headers for kind in outcome.variants.kinds], outcome.variants.marks[part]))
    if outcome.cache_marks:
        given = [(CACHE_HEADERS[mark],) if mark in CACHE_HEADERS else () for mark in range(1 + max(CACHE_HEADERS))]
        further.append((given, np.frombuffer(outcome.cache_marks, np.uint8)[part]))
    return further


def _results(
    keys: Iterable[bytes | None],
    values: Sequence[bytes],
    timestamps: Sequence[int],
    headers: dict[int, HeaderList],
    further: FurtherHeaders,
) -> list[Outgoing]:
    """Results with their usual headers, by timestamp, and further ones; equal ones are one list."""
    if not further:
        return [
            (key, value, headers[timestamp]) for key, value, timestamp in zip(keys, values, timestamps, strict=True)
        ]
    kinds = list(zip(timestamps, *(marks.tolist() for _, marks in further), strict=True))
    lists = {
        kind: [*headers[kind[0]], *chain(*(given[mark] for (given, _), mark in zip(further, kind[1:], strict=True)))]
        for kind in set(kinds)
    }
    return [(key, value, lists[kind]) for key, value, kind in zip(keys, values, kinds, strict=True)]
