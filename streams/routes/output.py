"""Output batches of a route: records of the sink, and dead letters, in the order of the source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

from aiokafka import TopicPartition

from inferd.schemas.errors import InferenceError, InvalidValueError, ModelServingError
from inferd.schemas.headers import ALIAS_REVISION, VARIANT
from inferd.schemas.record_size import record_bytes
from inferd.schemas.routes import Tombstones
from inferd.streams.group import Records
from inferd.streams.inference import AliasHeaders, Outcome, Record
from inferd.streams.kafka import Destinations, Outgoing
from inferd.streams.lane import DeadLetters, OutputBatch
from inferd.streams.routes.partitions import sink_partition

_OF_ALIAS = (ALIAS_REVISION, VARIANT)
_SMALL_BYTES = 1_024
"""More than a record takes besides its key, value and headers."""


@dataclass(frozen=True, slots=True)
class Sink:
    """The sink of a route, as the broker describes it."""

    topic: str
    sources: int
    """Partitions of the source topic."""
    partitions: int
    destinations: Destinations

    def partition(self, record: Record, source: int) -> int:
        """The partition for a record of partition `source`."""
        return sink_partition(record.key, source, record.offset, self.sources, self.partitions)

    def rejection(self, outgoing: Outgoing) -> InferenceError | None:
        """Why the sink would refuse a record; None if it would not."""
        key, value, headers = outgoing
        here = self.destinations[self.topic]
        if here.keyed and key is None:
            return InvalidValueError(f"topic {self.topic} is compacted and rejects records without a key")
        if not headers and len(value or b"") + len(key or b"") + _SMALL_BYTES <= here.bytes_max:
            return None
        if record_bytes(key, value, headers) <= here.bytes_max:
            return None
        return self.destinations.rejection(self.topic, outgoing)


@dataclass(slots=True)
class RouteOutput:
    """Fills the output batch of the records of one partition."""

    output: OutputBatch
    tp: TopicPartition
    sink: Sink
    dead_letters: DeadLetters
    dead_letter_partition: int
    version_of: Callable[[str | None], tuple[str, int] | None]
    tombstones: Tombstones

    def fill(self, records: Records, outcome: Outcome, span: range) -> None:
        """Adds all records; `span` is the range in `outcome` of those with a value."""
        values = outcome.values[span.start : span.stop]
        failed = outcome.failures and any(index in span for index in outcome.failures)
        plain = not failed and not outcome.sink_headers and len(records) == len(values)
        if not plain or not self._add_all(records, values, outcome.variants.of(span)):
            places = iter(span)
            for record in records:
                if is_tombstone(record):
                    self._add_tombstone(record)
                else:
                    self._add(record, outcome, next(places))

    def _add_all(self, records: Records, values: Sequence[bytes], variants: Sequence[AliasHeaders] | None) -> bool:
        """Adds records that were all scored; False if some of them need a closer look."""
        sink, tally = self.sink, self.output.tally
        here = sink.destinations[sink.topic]
        size = max(map(len, values)) + _SMALL_BYTES
        if sink.sources != sink.partitions or here.keyed or size > here.bytes_max:
            return False
        outgoing: list[Outgoing] = [
            (record.key, value, _with_alias(record.headers, variant))
            for record, value, variant in zip(records, values, variants or repeat(()), strict=variants is not None)
        ]
        if here.bytes_max < _BOUNDED and any(record_bytes(*each) > here.bytes_max for each in outgoing):
            return False
        self.output.by_topic[sink.topic, self.tp.partition] = outgoing
        tally.results += len(values)
        tally.bytes_out += sum(map(len, values))
        return True

    def _add_tombstone(self, record: Record) -> None:
        self.output.tally.tombstones += 1
        if self.tombstones == "skip":
            return
        outgoing: Outgoing = (record.key, None, list(record.headers))
        if (rejection := self.sink.rejection(outgoing)) is not None:
            self._reject(record, rejection)
        else:
            self._send(record, outgoing)

    def _add(self, record: Record, outcome: Outcome, index: int) -> None:
        tally, value, error = self.output.tally, outcome.values[index], outcome.failures.get(index)
        tally.results += 1
        if error is not None:
            tally.fail(error.code, self.version_of(outcome.asked.get(index)))
        headers = outcome.sink_headers.get(index, record.headers)
        outgoing: Outgoing = (record.key, value, _with_alias(headers, outcome.variants.at(index)))
        if value and (rejection := self.sink.rejection(outgoing)) is not None:
            if error is None:
                tally.fail(rejection.code, None)
            self._reject(record, error or rejection)
        elif value:
            self._send(record, outgoing)
        elif error is not None:
            self._reject(record, error)

    def _send(self, record: Record, outgoing: Outgoing) -> None:
        self.output.tally.bytes_out += len(outgoing[1] or b"")
        self.output.add(self.sink.topic, self.sink.partition(record, self.tp.partition), outgoing)

    def _reject(self, record: Record, error: ModelServingError) -> None:
        self.dead_letters.add(self.output, record, self.tp, error, self.dead_letter_partition)


_BOUNDED = 2**31 - 1


def is_tombstone(record: Record) -> bool:
    """Whether a record has no value, and could be read."""
    return record.value is None and getattr(record, "rejection", None) is None


def before(records: Records, valued: int) -> Records:
    """The records in front of the one that is the `valued`-th with a value, from 0."""
    for place, record in enumerate(records):
        if not is_tombstone(record):
            if valued == 0:
                return records[:place]
            valued -= 1
    return records


def _with_alias(headers: Sequence[tuple[str, bytes | None]], variant: AliasHeaders) -> list[tuple[str, bytes | None]]:
    """The headers of a record of the sink, and those of the alias instead of its source's."""
    if not variant:
        return list(headers)
    return [*(header for header in headers if header[0] not in _OF_ALIAS), *variant]
