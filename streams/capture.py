"""Captures a share of the requests, with the features and outputs of their rows, to a topic of the tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from aiokafka import TopicPartition

from inferd.schemas.capture import HEADERS, CapturedRequest, encode_captured
from inferd.streams.inference import Outcome, ScoredRows, key_digests
from inferd.streams.kafka import Destinations, Outgoing
from inferd.streams.lane import OutputBatch
from inferd.streams.recording import LateRecords, Part

SALT = b"capture "
"""Before the ids that are hashed: a share of the ids is then no share of a split, which hashes them too."""


class Capture:
    """Chooses requests by a hash of their ids: a request that is processed again is captured again, or again not.

    What is captured of a partition's records is published with their results; HTTP requests wait for the next output of
    any partition, and are lost if the worker ends before that.
    """

    def __init__(self, topic: str, share: float, destinations: Destinations) -> None:
        """`share`: more than 0, up to 1."""
        self.topic, self.share = topic, share
        self._destinations = destinations
        self._late = LateRecords()
        self.written = 0
        """Requests captured since the start of the process."""
        self.refused = 0
        """Requests that are not captured, because their records are too large for the topic."""

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        yield self._partition_of(number)

    def add(self, parts: Sequence[Part], outcome: Outcome, now_ms: int) -> None:
        part_of = {index: part for part in parts for index in part.span}
        for scored in outcome.scored:
            chosen = self._chosen(scored, part_of, outcome)
            spans = scored.spans() if chosen else []
            for place, request_id in chosen:
                index = int(scored.indexes[place])
                part = part_of[index]
                captured = _captured(scored, index, spans[place], request_id, outcome, now_ms)
                key = part.record(index).key or request_id.encode()
                outgoing: Outgoing = (key, encode_captured(captured), [*HEADERS])
                if self._destinations.rejection(self.topic, outgoing) is not None:
                    self.refused += 1
                elif part.output is None:
                    self._late.add(outgoing)
                else:
                    self._write(part.number, part.output, outgoing)

    def add_late(self, number: int, output: OutputBatch) -> None:
        for outgoing in self._late.take():
            self._write(number, output, outgoing)

    def _partition_of(self, number: int) -> TopicPartition:
        """Where requests of partition `number` are captured."""
        return TopicPartition(self.topic, number % max(1, self._destinations[self.topic].partitions))

    def _chosen(self, scored: ScoredRows, part_of: Mapping[int, Part], outcome: Outcome) -> list[tuple[int, str]]:
        """The places of requests to capture, and their ids."""
        places = [
            place
            for place, index in enumerate(scored.indexes.tolist())
            if index in part_of and index not in outcome.failures
        ]
        if not places:
            return []
        ids = [
            scored.ids[place] or part_of[index].default_id(index)
            for place, index in zip(places, scored.indexes[places].tolist(), strict=True)
        ]
        digests = key_digests([SALT + each.encode() for each in ids]).astype(np.float64)
        return [(places[at], ids[at]) for at in np.flatnonzero(digests < self.share * 2.0**64).tolist()]

    def _write(self, number: int, output: OutputBatch, outgoing: Outgoing) -> None:
        self.written += 1
        output.tally.bytes_out += len(outgoing[1] or b"")
        output.add(*self._partition_of(number), outgoing)


def _captured(
    scored: ScoredRows, index: int, rows: slice, request_id: str, outcome: Outcome, now_ms: int
) -> CapturedRequest:
    """The request of record `index`, which has these rows of `scored`."""
    model = scored.model
    choice = outcome.variants.choice(index)
    return CapturedRequest(
        id=request_id,
        model_id=model.manifest.model_id,
        version=model.manifest.version,
        scored_at=now_ms,
        alias=choice.alias,
        alias_revision=choice.revision,
        variant=choice.variant,
        features=model.features.values(scored.inputs[rows]),
        outputs=model.postprocessor.columns(
            {output: values[rows] for output, values in scored.arrays.items()}, scored.outputs
        ),
    )
