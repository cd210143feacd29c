"""What a lane looks at regularly: gaps that fetches have left, and reply topics that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from inferd.streams.kafka import Destinations, RetentionGaps, TopicRejectedError
from inferd.streams.lane.assignment import Group
from inferd.streams.lane.guarantees import PUBLISH_ERRORS, Failed
from inferd.streams.lane.partition import Partition
from inferd.streams.telemetry import LaneMeasures

INTERVAL_S = 1.0
REPLY_LATE_S = 2.0
"""A reply that is not acknowledged for so long has its topic looked at."""


async def watch_gaps(gaps: RetentionGaps, group: Group, measures: LaneMeasures) -> None:
    """Counts and names what retention deleted while it was being read."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        if not gaps.noted:  # before the first fetch there may be no consumer to ask
            continue
        with contextlib.suppress(*PUBLISH_ERRORS):  # they are looked at when the broker answers again
            measures.records_missing += await gaps.check(group.consumer)


async def watch_destinations(
    destinations: Callable[[], Destinations], partitions: Callable[[], Iterable[Partition]], failed: Failed
) -> None:
    """Gives up replies whose topic is gone: producers would send them again for ever."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        late = [(p, topics) for p in partitions() if (topics := p.late_replies(REPLY_LATE_S))]
        if late or destinations().outdated:
            await destinations().look()
        for partition, topics in late:
            if (topic := destinations().unusable(topics)) is not None:
                failed(partition, TopicRejectedError(topic))
