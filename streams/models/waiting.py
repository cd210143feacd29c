"""Splits a micro-batch into the records that can be scored now and those that wait for their version to be loaded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from inferd.streams.inference import NeededVersions, Record, Version
from inferd.streams.models.on_demand import OnDemandLoader

R = TypeVar("R", bound=Record)


@dataclass(slots=True)
class Waiting:
    """One micro-batch of a tenant, some of whose models may be paused."""

    tenant: str
    on_demand: OnDemandLoader | None
    """None: all versions are loaded."""
    needed: NeededVersions
    paused: Collection[str] = ()
    """Models whose requests wait until they are resumed."""
    versions: dict[int, Version] = field(default_factory=dict)
    """Those that the records of `ready` need, by identity."""

    def ready(self, partition: int, records: Sequence[R]) -> Sequence[R]:
        """The records of a partition before the first one that waits; later ones wait too, so that their order is
        kept."""
        for count, record in enumerate(records):
            if self.waits(partition, record):
                return records[:count]
        return records

    def waits(self, partition: int, record: Record) -> bool:
        """Whether a record waits for its model to be resumed, or for its version."""
        if self.paused and self.needed.model_of(partition, record) in self.paused:
            return True
        if self.on_demand is None or not self.on_demand.bounded:
            return False
        version = self.needed.of(partition, record)
        if version is None:
            return False
        if id(version) not in self.versions:
            if self.on_demand.waits_for(self.tenant, version):
                return True
            self.versions[id(version)] = version
        return False
