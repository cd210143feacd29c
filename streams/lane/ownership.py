"""Ownership of partitions: assignment, revocation, and takeover after a failure or a change of topics.

A failure affects one tenant, which recovers while the others continue. Assignments and revocations begin a new epoch,
which cancels every takeover of an earlier one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping

import structlog
from aiokafka import TopicPartition

from inferd.streams.kafka import unserved_reasons
from inferd.streams.lane.assignment import Takeover, TakeoverPlan
from inferd.streams.lane.backoff import Faults
from inferd.streams.lane.context import ALL_TENANTS, LaneContext
from inferd.streams.lane.partition import Partition, by_topic
from inferd.streams.lane.publisher import Publisher
from inferd.streams.tasks import cancelled

log = structlog.get_logger(__name__)


class Ownership:
    """Acquires and releases the partitions of a lane."""

    def __init__(self, context: LaneContext, publisher: Publisher, takeover: Takeover) -> None:
        self._context = context
        self._settings = context.settings
        self._partitions = context.partitions
        self._publisher = publisher
        self._takeover = takeover
        self._assigned: set[TopicPartition] = set()
        self._generation = -1
        """Of the membership that assigned them."""
        self._epoch = 0
        self._paused: set[str] = set()
        """Tenants whose partitions are being taken over again."""
        self._acquisition: asyncio.Task[None] | None = None
        self._recoveries: dict[str, asyncio.Task[None]] = {}
        """By tenant."""

    def paused(self, tenant: str) -> bool:
        """Whether fetching and processing are paused for a tenant."""
        return tenant in self._paused

    @property
    def settled(self) -> bool:
        """Whether the takeover of the last assignment is complete."""
        return self._acquisition is not None and self._acquisition.done() and not self._acquisition.cancelled()

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """Lane partitions assigned to this worker, served or not."""
        return frozenset(self._assigned)

    @property
    def unserved(self) -> list[str]:
        """Why assigned partitions are not served: topics or partitions that they need do not exist. Routes report
        themselves."""
        servable, processors = self._takeover.servable(self._assigned), self._partitions.processors
        unserved = {tp for tp in self._assigned - servable if processors[tp.topic].kind != "routes"}
        return unserved_reasons(unserved, self._takeover.lacking)

    # ------------------------------------------------------------------ assigned and revoked

    async def acquire(self, tps: Collection[TopicPartition]) -> None:
        """Takes assigned lane partitions over (fence, restore, open, read positions, seek); retries while assigned."""
        await self.end_takeovers()
        self._assigned = {tp for tp in tps if tp.topic in self._partitions.processors}
        self._generation = self._context.group.generation
        takeover = self._take_over(self._epoch, self._partitions.tenants, self._context.faults[ALL_TENANTS])
        self._acquisition = self._context.tasks.start(takeover)
        await asyncio.wait({self._acquisition}, timeout=self._settings.group.request_timeout_s)

    async def release(self, revoked: set[TopicPartition]) -> None:
        """Releases partitions: drops queued records, waits for in-flight ones within a deadline, commits, closes."""
        await self.end_takeovers()
        self._assigned -= revoked
        released = self._partitions.revoke(revoked)
        if released:
            await self._finish(released)
        self._takeover.close(revoked)
        lane_tps = [tp for tp in revoked if tp.topic in self._partitions.processors]
        _ = self._context.tasks.start(self._publisher.guarantee.release(lane_tps))

    async def _finish(self, released: Collection[Partition]) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.lane.revoke_timeout_s):
                await self._publisher.settle(released)
        except TimeoutError:
            log.warning("release_timed_out", in_flight=sum(p.in_flight for p in released))
            self._publisher.cancel(released)
        await self._publisher.commit(released)
        self._partitions.close(released)
        tps = [partition.tp for partition in released]
        log.info("partitions_released", partitions=by_topic(tps), ms=round((time.monotonic() - started) * 1000))

    async def end_takeovers(self) -> None:
        """Cancels all takeovers and waits until they have ended, so that the next one does not overlap them."""
        self._epoch += 1
        await cancelled([task for task in (self._acquisition, *self._recoveries.values()) if task is not None])

    async def _take_over(
        self, epoch: int, tenants: Collection[str], faults: Faults, *, after_failure: bool = False
    ) -> None:
        generation = self._generation
        topics = {topic for topic, processor in self._partitions.processors.items() if processor.tenant in tenants}

        def still_assigned() -> bool:
            return self._epoch == epoch and self._context.group.generation == generation

        def opened(partitions: Mapping[TopicPartition, Partition]) -> None:
            self._partitions.replace(partitions, topics)
            for tenant in () if after_failure else tenants:
                self._context.faults[tenant].clear()

        plan = TakeoverPlan(
            topics=topics, tps={tp for tp in self._assigned if tp.topic in topics}, faults=faults,
            before=self._partitions, generation=generation, still_assigned=still_assigned, opened=opened,
            after_failure=after_failure,
        )  # fmt: skip
        await self._takeover.run(plan)
        self._paused.difference_update(tenants)
        self._context.progress.advance()

    # ------------------------------------------------------------------ failed

    def failed(self, partition: Partition, error: BaseException) -> None:
        """A publication failed: all unacknowledged records of the tenant are fetched and processed again."""
        tenant = self._partitions.processor(partition).tenant
        if partition.state == "draining":
            self._partitions.rewind([partition])
            self._context.progress.advance()
        elif partition.running and not self._is_recovering(tenant):
            self._recoveries[tenant] = self._context.tasks.start(self._recover(tenant, error, self._epoch))

    def _is_recovering(self, tenant: str) -> bool:
        return tenant in self._recoveries and not self._recoveries[tenant].done()

    async def _recover(self, tenant: str, error: BaseException, epoch: int) -> None:
        self._paused.add(tenant)
        faults, partitions = self._context.faults[tenant], self._partitions.of_tenant(tenant)
        faults.note("results cannot be published", error)
        replies = {topic for partition in partitions for topic in partition.late_replies(0.0)}
        await self._context.destinations.learn(error, replies)
        await self._start_over(partitions)
        # A new producer starts even if a topic refuses writes, so back off until something is acknowledged.
        await faults.pause(self._publisher.guarantee.pause_s)
        await self._take_over(epoch, {tenant}, faults, after_failure=True)

    async def _start_over(self, partitions: Collection[Partition]) -> None:
        """Drops what is not acknowledged, and closes the producers concerned."""
        self._publisher.cancel(partitions)
        self._partitions.rewind(partitions)
        await self._publisher.guarantee.discard([partition.tp for partition in partitions])

    # ------------------------------------------------------------------ topics changed

    def check_topics(self) -> None:
        """Takes the partitions of a tenant over again if its topics were deleted, recreated or grown."""
        if not self.settled:
            return
        servable = self._takeover.servable(self._assigned)
        for tenant in self._partitions.tenants:
            if self._has_changed(tenant, servable):
                self.take_over_again(tenant)

    def take_over_again(self, tenant: str) -> None:
        """Takes the partitions of a tenant over again, unless that is being done."""
        if not self.paused(tenant) and not self._is_recovering(tenant):
            self._recoveries[tenant] = self._context.tasks.start(self._follow_topics(tenant, self._epoch))

    def _has_changed(self, tenant: str, servable: set[TopicPartition]) -> bool:
        owned = self._partitions.of_tenant(tenant)
        processors = self._partitions.processors
        served = {tp for tp in servable if processors[tp.topic].tenant == tenant}
        return served != {partition.tp for partition in owned} or any(map(self._takeover.outdated, owned))

    async def _follow_topics(self, tenant: str, epoch: int) -> None:
        log.warning("topics_changed", tenant=tenant, unserved=self.unserved)
        self._paused.add(tenant)
        partitions = self._partitions.of_tenant(tenant)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.lane.revoke_timeout_s):
                await self._publisher.settle(partitions)
        await self._publisher.commit(partitions)
        await self._start_over(partitions)
        await self._take_over(epoch, {tenant}, self._context.faults[tenant])
