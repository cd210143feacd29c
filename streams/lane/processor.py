"""The interface of a lane topic's processor: it turns fetched records into output batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, Protocol

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import TenantCounters

Kind = Literal["requests", "jobs", "chunks", "routes", "lifecycle"]
"""Each tenant has a worker for each kind, and one for each route."""

Work = Sequence[tuple[TopicPartition, Records]]
"""Records of a micro-batch, all of one topic: (partition, its records in order), …"""


class Processor(Protocol):
    """One lane topic of one tenant."""

    tenant: str
    """Whose records they are: a tenant, or a route of a tenant (`tenant/route`). Whatever delays or fails one does not
    affect the others."""
    topic: str
    kind: Kind
    counters: TenantCounters
    tables: Sequence[LaneTable]
    """Tables whose partition n holds what belongs to partition n of the topic."""

    def unit(self, number: int) -> Hashable:
        """Partitions of the same unit share state: they are never processed concurrently."""

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        """Partitions that output of a partition may be written to, except the changelogs of its tables."""

    def records_max(self) -> int:
        """Maximum records of the next micro-batch."""

    @property
    def waits(self) -> bool:
        """Whether HTTP requests are waiting or being processed."""

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        """The output of each part of `work`, in steps; never raises because of a record.

        `work` may be empty if the processor `waits`. Trailing records of a part that are in no step are processed again
        later.
        """

    def start(self, number: int) -> int | None:
        """The first offset of a partition that has no committed one; None: by the setting of the group."""

    async def opened(self, number: int) -> None:
        """A partition is owned and its tables are restored; its records follow."""

    def closed(self, number: int) -> None:
        """A partition is no longer owned."""

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        """Output that was not acknowledged is dropped, also from the tables; its records are fetched again."""

    def acked(self, number: int, output: OutputBatch) -> None:
        """An output batch is acknowledged and applied to the tables."""

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        """Output that is due by time; called regularly while nothing of the partition is being published."""
