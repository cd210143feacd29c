"""How many partitions are used of topics whose partition is the hash of an id, and where the state of an id was before.

The number is the one of the settings, doubled as long as each topic of the family has that many partitions. It depends
only on the topics, not on who added partitions or in which order. Since each number divides the next, the state of an
id moves from an old partition to a new one, never between old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, get_args

from inferd.schemas.topics import LABEL_STREAMS, LIFECYCLE_STREAMS, Stream, TenantTopics
from inferd.streams.kafka.changelogs import changelog_name
from inferd.streams.kafka.partitioner import partition_of_key
from inferd.streams.settings import StreamSettings

Family = Literal["jobs", "labels"]
"""Topics that share the state of an id: also the name of their table."""
FAMILIES: tuple[Family, ...] = get_args(Family)
READ: dict[Family, tuple[Stream, ...]] = {"jobs": ("jobs", "job-results"), "labels": LABEL_STREAMS}
"""Streams whose records change the state; both are owned by the same worker."""
ALSO_USED: dict[Family, tuple[Stream, ...]] = {
    "jobs": ("job-chunks", "job-status", "dead-letters"),
    "labels": ("dead-letters",),
}


def used_partitions(base: int, counts: Collection[int]) -> int:
    """The largest number of `base`, twice `base`, … of which all `counts` have as many; `base` if none has."""
    doublings = (min(counts, default=0) // base).bit_length() - 1
    return base << max(0, doublings)


def since(number: int, base: int) -> int:
    """The first number of used partitions that includes partition `number`."""
    count = base
    while number >= count:
        count *= 2
    return count


def ancestors(number: int, base: int) -> list[int]:
    """The partitions that may have states of the ids of partition `number` from before it was used, latest first."""
    found = []
    while number >= base:
        number -= since(number, base) // 2
        found.append(number)
    return found


def belongs(key: bytes, number: int, base: int) -> bool:
    """Whether the state of an id moves to partition `number` when that is first used."""
    return partition_of_key(key, since(number, base)) == number


def topics_of(settings: StreamSettings, tenant: str, family: Family) -> tuple[str, ...]:
    """The topics of a family: that many partitions of each are needed."""
    names = TenantTopics(settings.namespace, tenant)
    changelog = changelog_name(settings.group.group_id, tenant, family)
    return (*(names.name(stream) for stream in (*READ[family], *ALSO_USED[family])), changelog)


def keyed_topics(settings: StreamSettings, tenant: str) -> list[str]:
    """The topics of a tenant whose records change states that are found by the hash of an id."""
    names = TenantTopics(settings.namespace, tenant)
    return [names.name(stream) for family in FAMILIES for stream in READ[family]]


class UsedPartitions:
    """The number of partitions in use by topic. It never decreases: a topic that is deleted does not move any state."""

    def __init__(self, settings: StreamSettings, partitions_of: Callable[[str], int]) -> None:
        """`partitions_of`: the partition count of a topic as the broker said last; 0 if it is not known."""
        self._base, self._partitions_of = settings.topics.partitions, partitions_of
        self._topics: dict[tuple[str, Family], Sequence[str]] = {
            (tenant, family): topics_of(settings, tenant, family)
            for tenant in settings.tenants
            for family in FAMILIES
            if family != "labels" or settings.labels_window_s
        }
        self._single = {
            TenantTopics(settings.namespace, tenant).name(stream)
            for tenant in settings.tenants
            for stream in LIFECYCLE_STREAMS
        }
        self._used: dict[tuple[str, Family], int] = {}
        self._family: dict[str, tuple[str, Family]] = {}
        for of in self._topics:
            tenant, family = of
            names = TenantTopics(settings.namespace, tenant)
            self._family |= {names.name(stream): of for stream in (*READ[family], *ALSO_USED[family][:-1])}

    def of(self, tenant: str, family: Family) -> int:
        """The number in use."""
        of = tenant, family
        counts = [self._partitions_of(topic) for topic in self._topics.get(of, ())]
        used = max(self._used.get(of, self._base), used_partitions(self._base, counts))
        self._used[of] = used
        return used

    def most(self, topic: str) -> int | None:
        """How many partitions of a topic are assigned to workers at most; None: all."""
        if topic in self._single:
            return 1
        of = self._family.get(topic)
        return None if of is None else self.of(*of)

    def __iter__(self) -> Iterator[tuple[str, Family, int]]:
        """Tenant, family and number in use."""
        return ((tenant, family, self.of(tenant, family)) for tenant, family in self._topics)
