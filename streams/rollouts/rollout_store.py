"""Rollouts in the partitions owned by this worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import structlog

from inferd.schemas.errors import MalformedError
from inferd.schemas.rollouts import RolloutStatus, decode_rollout_status
from inferd.streams.rollouts.transitions import is_settled
from inferd.streams.state import LaneTable, TablePartition
from inferd.streams.tasks import Slices
from inferd.streams.telemetry import RolloutSnapshot, RolloutsSnapshot

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class RolloutsPartition:
    """Rollouts of one partition, by model."""

    table: TablePartition
    live: dict[str, RolloutStatus] = field(default_factory=dict)
    """Those that may still change an alias, and those that the table has not acknowledged yet."""
    published_ms: dict[str, int] = field(default_factory=dict)
    """When the newest status of a live rollout was published."""

    def get(self, model_id: str) -> RolloutStatus:
        """The newest status; an empty one if the model never had a rollout."""
        if (status := self.live.get(model_id)) is not None:
            return status
        value = self.table.get(model_id.encode())
        return RolloutStatus() if value is None else decode_rollout_status(value)

    def put(self, model_id: str, status: RolloutStatus) -> None:
        """Sets the status of a model."""
        self.live[model_id] = status

    def acked(self, model_ids: Iterable[str]) -> None:
        """The table has acknowledged these statuses."""
        for model_id in model_ids:
            status = self.live.get(model_id)
            if status is not None and (status.rollout is None or is_settled(status.rollout)):
                del self.live[model_id]
                self.published_ms.pop(model_id, None)


class RolloutStore:
    """The rollouts of one tenant that this worker owns."""

    def __init__(self, tenant: str, table: LaneTable) -> None:
        self.slices = Slices()
        """Shared with other tenants of the worker."""
        self.tenant = tenant
        self.table = table
        self.partitions: dict[int, RolloutsPartition] = {}
        self.ended = Counter[str]()
        """By phase, how many have ended since the start."""

    async def open(self, number: int) -> None:
        """Reads every rollout of a restored partition; again if it is open already."""
        partition = RolloutsPartition(self.table.partition(number))
        await self.slices.run(partition.table.store.items(), partial(self._read, partition))
        self.partitions[number] = partition

    def reopen(self, number: int) -> None:
        """Reads them again, at once: changes were dropped."""
        if number in self.partitions and number in self.table.owned:
            partition = RolloutsPartition(self.table.partition(number))
            self._read(partition, partition.table.store.items())
            self.partitions[number] = partition

    def close(self, number: int) -> None:
        """Drops a revoked partition."""
        self.partitions.pop(number, None)

    def live(self) -> Iterator[RolloutStatus]:
        """Rollouts that may still change an alias."""
        for partition in self.partitions.values():
            yield from partition.live.values()

    def snapshot(self) -> RolloutsSnapshot | None:
        """The rollouts that may still change an alias; None if this worker does not own the tenant's."""
        if not self.partitions and not self.ended:
            return None
        live = [
            RolloutSnapshot(each.model_id, each.alias, each.version, each.phase, each.steps[each.step])
            for status in self.live()
            if (each := status.rollout) is not None
        ]
        return RolloutsSnapshot(self.tenant, live, dict(sorted(self.ended.items())))

    def _read(self, partition: RolloutsPartition, items: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in items:
            try:
                partition.put(model_id := key.decode(), decode_rollout_status(value))
            except (MalformedError, UnicodeDecodeError):  # One that is unreadable must not stop the others.
                log.exception("rollout_unreadable", tenant=self.tenant, model=key[:80])
            else:
                partition.acked([model_id])
