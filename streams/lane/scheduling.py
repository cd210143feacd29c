"""How partitions and tenants share bounded resources: a micro-batch, and memory for records."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.lane.owned_partitions import OwnedPartitions
from inferd.streams.lane.partition import Partition

PARTITION_BYTES_MIN = 1_048_576
"""Bytes that every partition may queue, whatever the number of partitions."""


def share_out(ready: Sequence[Partition], rows: int, size: int) -> list[tuple[Partition, Records]]:
    """Takes a micro-batch of at most `rows` records and `size` bytes from partitions, which are in order of precedence.

    A partition with less than an equal share gives all it has. The rest is taken from the others, one after the other:
    long ranges of few partitions make larger batches and transactions than short ranges of all.
    """
    share = rows // len(ready), size // len(ready)
    taken: list[tuple[Partition, Records]] = []
    for partition in sorted(ready, key=lambda partition: not _within(partition, *share)):
        if taken and (rows <= 0 or size <= 0):
            break
        before = partition.queued_bytes
        records = partition.take(max(1, rows), max(1, size))
        rows -= len(records)
        size -= before - partition.queued_bytes
        if records:
            taken.append((partition, records))
    return taken


def _within(partition: Partition, rows: int, size: int) -> bool:
    return partition.queued <= rows and partition.queued_bytes <= size


def first_per_unit(partitions: Iterable[tuple[Partition, Hashable]], busy: Collection[Hashable]) -> list[Partition]:
    """The first partition of each unit that is not busy."""
    seen = set(busy)
    chosen = []
    for partition, unit in partitions:
        if unit not in seen:
            seen.add(unit)
            chosen.append(partition)
    return chosen


def with_room(used: Mapping[str, int], bytes_max: int) -> set[str]:
    """The tenants that may use more of `bytes_max`, which they share; `used` has the bytes of every tenant.

    Half of it is reserved in equal parts, one for each tenant; the other half is first come, first served.
    """
    part = bytes_max // 2 // max(1, len(used))
    beyond = sum(max(0, each - part) for each in used.values())
    some_left = beyond < bytes_max - part * len(used)
    return {tenant for tenant, each in used.items() if some_left or each < part}


def without_room(tps: Iterable[TopicPartition], partitions: OwnedPartitions, bytes_max: int) -> set[TopicPartition]:
    """The partitions among `tps` that are not open, or may not queue more."""
    room = with_room({tenant: usage.queued_bytes for tenant, usage in partitions.usage.items()}, bytes_max)
    share = max(PARTITION_BYTES_MIN, bytes_max // max(1, len(partitions)))
    full = set()
    for tp in tps:
        partition = partitions.get(tp)
        if (
            partition is None
            or not partition.running
            or partition.queued_bytes >= share
            or partitions.processor(partition).tenant not in room
        ):
            full.add(tp)
    return full
