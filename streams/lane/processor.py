"""What a lane asks of each of its topics: a stage turns fetched records into what follows from them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, Protocol

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.lane.output_batch import Effects
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import TenantCounters

Kind = Literal["requests", "jobs", "chunks"]
"""Stages of one kind take turns with each other; kinds go on side by side."""

Work = Sequence[tuple[TopicPartition, Records]]
"""Records of a micro-batch: (partition, records of it in order), …, all of one topic."""


class Stage(Protocol):
    """One lane topic of one tenant."""

    tenant: str
    topic: str
    kind: Kind
    counters: TenantCounters
    tables: Sequence[LaneTable]
    """Tables whose partition n holds what belongs to partition n of the topic."""

    def unit(self, number: int) -> Hashable:
        """Partitions of one unit are never at work at the same time, because they share state."""

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        """Where what follows from records of a partition may go; changelogs of its tables aside."""

    def records_max(self) -> int:
        """How many records the next micro-batch may have."""

    @property
    def waits(self) -> bool:
        """Whether there is work that was not fetched, waiting or under way."""

    async def process(self, work: Work) -> Sequence[Sequence[Effects]]:
        """What follows from each part of `work`, in steps; no record makes it raise. `work` may be empty where the
        stage `waits`. Records at the end of a part that are in no step come again in a while."""

    async def opened(self, number: int) -> None:
        """A partition is owned, and its tables are restored; its records come when this is through."""

    def closed(self, number: int) -> None:
        """A partition is not owned any more."""

    def rewound(self, number: int, dropped: Sequence[Effects]) -> None:
        """Effects that were not acknowledged are forgotten, by the tables too; their records will come again."""

    def landed(self, number: int, effects: Effects) -> None:
        """Effects are acknowledged, and in the tables."""

    def idle_effects(self, tp: TopicPartition, next_offset: int, now_ms: int) -> Effects | None:
        """What follows from time alone, asked regularly while nothing of the partition is being published."""
