"""Publishes output batches, with one task per partition, and handles their acknowledgements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence

from aiokafka.errors import CommitFailedError

from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.guarantee import PUBLISH_ERRORS, Guarantee, OnAcked, OnFailed
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import InFlightBatch, Partition
from inferd.streams.lane.processor import Kind
from inferd.streams.tasks import OnCrash, when_done
from inferd.streams.telemetry import Step

STEP_OF_PUBLISHING: dict[Kind, Step] = {"requests": "respond", "chunks": "store"}
MakeGuarantee = Callable[[OnAcked, OnFailed, OnCrash], Guarantee]
"""Makes a guarantee from callbacks: output acknowledged, publication failed, callback raised."""


class Publisher:
    """Passes output batches to the guarantee, in order within each partition."""

    def __init__(self, context: LaneContext, make_guarantee: MakeGuarantee, on_failed: OnFailed) -> None:
        """`on_failed` is called with a partition whose output could not be published."""
        self.guarantee = make_guarantee(self._acked, on_failed, context.on_crash)
        self.job_acked = asyncio.Event()
        """Set when output of a job is acknowledged: the job may have more output that is due by time."""
        self._context = context
        self._on_failed = on_failed
        self._publishing: dict[Partition, asyncio.Task[None]] = {}

    @property
    def publishing(self) -> Collection[Partition]:
        """Partitions whose output is being passed to the producer."""
        return self._publishing.keys()

    def publish(self, partition: Partition, steps: Sequence[OutputBatch]) -> None:
        """Publishes the output of a range of records, step by step."""
        if not steps:
            return
        for output in steps:
            for table, changes in output.changes.items():
                table.stage(changes)
        task = self._publishing[partition] = self._context.tasks.start(self._publish(partition, steps))
        when_done(task, lambda _: self._published(partition), self._context.on_crash)

    async def _publish(self, partition: Partition, steps: Sequence[OutputBatch]) -> None:
        rewinds = partition.rewinds
        try:
            for output in steps:
                if output.after_commit:
                    await self._commit_all_before(partition)
                if partition.rewinds != rewinds:
                    return
                output.published_at = time.perf_counter()
                await self.guarantee.publish(partition, output, self._context.now_ms())
        except PUBLISH_ERRORS as error:
            if partition.rewinds == rewinds:
                self._on_failed(partition, error)

    async def _commit_all_before(self, partition: Partition) -> None:
        """Waits until everything in flight is acknowledged, then commits it; `KafkaError` if the commit is refused."""
        await self._context.progress.until(lambda: not partition.has_in_flight)
        await self.commit([partition])
        if partition.committed < partition.acked:
            raise CommitFailedError("earlier records cannot be committed")

    def _published(self, partition: Partition) -> None:
        self._publishing.pop(partition, None)
        self._context.progress.advance(partition)

    def _acked(self, partition: Partition, batch: InFlightBatch) -> None:
        """All output of a range of records is acknowledged."""
        processor, output = self._context.partitions.processor(partition), batch.output
        self._context.faults[processor.tenant].clear()
        for table, changes in output.changes.items():
            table.apply(changes, batch.written[table])
        if processor.kind == "requests":
            self._context.measures.end_to_end.observe_since(output.timestamps, self._context.now_ms())
        if output.records and (step := STEP_OF_PUBLISHING.get(processor.kind)) is not None:
            self._context.measures.observe_step(step, time.perf_counter() - output.published_at)
        processor.counters.add(output.tally)
        processor.acked(partition.tp.partition, output)
        if output.on_acked is not None:
            output.on_acked()
        if processor.kind == "jobs":
            self.job_acked.set()
        self._context.progress.advance(partition)

    async def commit(self, partitions: Collection[Partition]) -> None:
        """Commits the acknowledged offsets of `partitions`."""
        if partitions:  # The consumer may not exist yet.
            await self.guarantee.commit(self._context.group.consumer, partitions)

    async def settle(self, partitions: Collection[Partition]) -> None:
        """Waits until nothing of `partitions` is being published or in flight."""
        await self._context.progress.until(
            lambda: not any(p.has_in_flight or p in self._publishing for p in partitions)
        )

    def cancel(self, partitions: Collection[Partition]) -> None:
        """Stops publishing output of `partitions`."""
        for partition in partitions:
            if (task := self._publishing.get(partition)) is not None:
                task.cancel()
