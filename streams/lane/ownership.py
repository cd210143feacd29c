"""Ownership of partitions: they are assigned, revoked, and taken over again after a failure or a change of topics.

At most one takeover runs at a time. Assignments and revocations begin a new epoch, which ends every earlier one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection

import structlog
from aiokafka import TopicPartition

from inferd.streams.kafka import unserved_reasons
from inferd.streams.lane.assignment import Order, Takeover
from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.partition import Partition, by_topic
from inferd.streams.lane.publisher import Publisher
from inferd.streams.tasks import cancelled

log = structlog.get_logger(__name__)


class Ownership:
    """Acquires and releases the partitions of a lane."""

    def __init__(self, context: LaneContext, publisher: Publisher, takeover: Takeover) -> None:
        self.paused = False
        """Nothing is fetched or taken: partitions are being taken over again."""
        self._context = context
        self._settings = context.settings
        self._partitions = context.partitions
        self._publisher = publisher
        self._takeover = takeover
        self._assigned: set[TopicPartition] = set()
        self._generation = -1
        """Of the membership that assigned them."""
        self._epoch = 0
        self._acquisition: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None

    @property
    def settled(self) -> bool:
        """Whether the last assignment has been taken over."""
        return self._acquisition is not None and self._acquisition.done() and not self._acquisition.cancelled()

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """Lane partitions that the group has given to this worker, served or not."""
        return frozenset(self._assigned)

    @property
    def unserved(self) -> list[str]:
        """Why partitions that are assigned here are not served: what they need does not exist."""
        return unserved_reasons(self._assigned - self._servable(), self._takeover.lacking)

    # ------------------------------------------------------------------ assigned and revoked

    async def acquire(self, tps: Collection[TopicPartition]) -> None:
        """Takes over assigned lane partitions: fence, read positions, seek, open; tries again while they are ours."""
        await self.end_takeovers()
        self._assigned = {tp for tp in tps if tp.topic in self._partitions.stages}
        self._generation = self._context.group.generation
        self._acquisition = self._context.tasks.start(self._take_over(self._epoch))
        await asyncio.wait({self._acquisition}, timeout=self._settings.group.request_timeout_s)

    async def release(self, revoked: set[TopicPartition]) -> None:
        """Gives partitions up: drops what waits, finishes what is in flight within a deadline, commits, and no more."""
        await self.end_takeovers()
        self._assigned -= revoked
        released = self._partitions.withdraw(revoked)
        if released:
            await self._finish(released)
        self._takeover.close(revoked)

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
        _ = self._context.tasks.start(self._publisher.guarantee.release(tps))
        log.info("partitions_released", partitions=by_topic(tps), ms=round((time.monotonic() - started) * 1000))

    async def end_takeovers(self) -> None:
        """Cancels what takes partitions over, and waits for its end: the next one must not meet it half done."""
        self._epoch += 1
        await cancelled([task for task in (self._acquisition, self._recovery) if task is not None])

    async def _take_over(self, epoch: int, *, after_failure: bool = False) -> None:
        generation = self._generation

        def ours() -> bool:
            return self._epoch == epoch and self._context.group.generation == generation

        order = Order(
            tps=set(self._assigned), before=self._partitions, generation=generation, ours=ours,
            opened=self._partitions.replace, after_failure=after_failure,
        )  # fmt: skip
        await self._takeover.run(order)
        self.paused = False
        self._context.progress.advance()

    # ------------------------------------------------------------------ failed

    def failed(self, partition: Partition, error: BaseException) -> None:
        """Something could not be published: everything unacknowledged is fetched and done again."""
        if partition.state == "draining":
            self._partitions.rewind([partition])
            self._context.progress.advance()
        elif partition.running and not self._recovering:
            self._recovery = self._context.tasks.start(self._recover(error, self._epoch))

    @property
    def _recovering(self) -> bool:
        return self._recovery is not None and not self._recovery.done()

    async def _recover(self, error: BaseException, epoch: int) -> None:
        self.paused = True
        self._context.faults.note("results cannot be published", error)
        await self._context.destinations.learn(
            error, {t for p in self._partitions.values() for t in p.late_replies(0.0)}
        )
        await self._start_over()
        # A topic that refuses writes lets a new producer start all the same: without acknowledgements, ever slower.
        await self._context.faults.pause(self._publisher.guarantee.pause_s)
        await self._take_over(epoch, after_failure=True)

    async def _start_over(self) -> None:
        """Forgets what is not acknowledged, and closes the producers."""
        partitions = self._partitions.values()
        self._publisher.cancel(partitions)
        self._partitions.rewind(partitions)
        await self._publisher.guarantee.close()

    # ------------------------------------------------------------------ topics changed

    def look_at_topics(self) -> None:
        """Takes all partitions over anew where topics were deleted, created again or grown since the last takeover."""
        if self.settled and not self.paused and not self._recovering and self._have_topics_changed():
            self._recovery = self._context.tasks.start(self._follow_topics(self._epoch))

    def _have_topics_changed(self) -> bool:
        return self._servable() != set(self._partitions) or any(
            map(self._takeover.outdated, self._partitions.values())
        )  # fmt: skip

    def _servable(self) -> set[TopicPartition]:
        return self._takeover.servable(self._assigned)

    async def _follow_topics(self, epoch: int) -> None:
        log.warning("topics_changed", unserved=self.unserved)
        self.paused = True
        partitions = self._partitions.values()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.lane.revoke_timeout_s):
                await self._publisher.settle(partitions)
        await self._publisher.commit(partitions)
        await self._start_over()
        await self._take_over(epoch)
