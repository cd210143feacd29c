"""State and dependencies shared by the parts of one lane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.streams.kafka import UNCHECKED, Destinations, KnownTopics
from inferd.streams.lane.backoff import Faults
from inferd.streams.lane.handover import Handover
from inferd.streams.lane.owned_partitions import OwnedPartitions
from inferd.streams.lane.processor import Processor
from inferd.streams.lane.progress import Progress
from inferd.streams.settings import StreamSettings
from inferd.streams.tasks import BackgroundTasks, OnCrash
from inferd.streams.telemetry import LaneMeasures

ALL_TENANTS = ""


class Group(Protocol):
    """The lane's view of the consumer group."""

    @property
    def generation(self) -> int:
        """Generation of the membership; changes with every rebalance."""

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """aiokafka's consumer."""

    async def seek(self, offsets: dict[TopicPartition, int]) -> None:
        """Moves the fetch positions; raises the errors of aiokafka if a partition is not assigned."""


@dataclass(slots=True, kw_only=True)
class LaneContext:
    """Settings, dependencies, and shared state of a lane."""

    settings: StreamSettings
    processors: dict[str, Processor]
    """By topic."""
    group: Group
    topics: KnownTopics
    measures: LaneMeasures
    on_crash: OnCrash
    """Called with an unexpected exception of a task."""
    destinations: Destinations = UNCHECKED
    """Limits of the topics that are written to."""
    handover: Handover | None = None
    """Fills new partitions of tables; None if there are none."""
    on_denied: Callable[[], None] = lambda: None
    """Called when the broker denies a request."""
    clock: Callable[[], float] = time.time
    """Unix seconds."""
    partitions: OwnedPartitions = field(init=False)
    tasks: BackgroundTasks = field(init=False)
    faults: dict[str, Faults] = field(init=False)
    """By tenant; the empty name has those that concern all tenants."""
    progress: Progress = field(init=False, default_factory=Progress)
    room: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set when there may be room for more fetched records."""
    blocked: set[asyncio.Event] = field(init=False, default_factory=set)
    """Events of workers that wait until less is in flight."""

    def __post_init__(self) -> None:
        self.partitions = OwnedPartitions(self.processors)
        self.tasks = BackgroundTasks(self.on_crash)
        self.faults = {}
        self.update()

    def update(self) -> None:
        """Follows a change of `processors`."""
        self.partitions.update()
        tenants = {ALL_TENANTS, *self.partitions.tenants}
        self.faults = {
            tenant: self.faults.get(tenant) or Faults(self.settings.group.request_timeout_s, self.on_denied)
            for tenant in tenants
        }

    def now_ms(self) -> int:
        return int(self.clock() * 1000)
