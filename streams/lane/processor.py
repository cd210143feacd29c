"""The interface of a lane topic's processor: it turns fetched records into effects."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, Protocol

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.lane.output_batch import Effects
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import TenantCounters

Kind = Literal["requests", "jobs", "chunks"]
"""Each tenant has a worker for each kind."""

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
        """Partitions of one unit share state: they are never processed at the same time."""

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        """Partitions that effects of a partition may be written to, except the changelogs of its tables."""

    def records_max(self) -> int:
        """How many records the next micro-batch may have."""

    @property
    def waits(self) -> bool:
        """Whether there are requests that did not come from Kafka, to be processed or being processed."""

    async def process(self, work: Work) -> Sequence[Sequence[Effects]]:
        """The effects of each part of `work`, in steps; no record makes it raise. `work` may be empty where the stage
        `waits`. Records at the end of a part that are in no step are processed again later."""

    async def opened(self, number: int) -> None:
        """A partition is owned, and its tables are restored; its records come after this."""

    def closed(self, number: int) -> None:
        """A partition is not owned any more."""

    def rewound(self, number: int, dropped: Sequence[Effects]) -> None:
        """Effects that were not acknowledged are dropped, from the tables, too; their records will come again."""

    def landed(self, number: int, effects: Effects) -> None:
        """Effects are acknowledged, and in the tables."""

    def idle_effects(self, tp: TopicPartition, next_offset: int, now_ms: int) -> Effects | None:
        """Effects of time alone; called regularly while nothing of the partition is being published."""
