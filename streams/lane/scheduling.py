"""How the partitions of a lane share what is bounded: a micro-batch, and the memory for what waits."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.lane.partition import Partition

PARTITION_BYTES_MIN = 1_048_576
"""What one partition may always have queued, however many share the buffer."""


def share_out(ready: Sequence[Partition], rows: int, size: int) -> list[tuple[Partition, Records]]:
    """Gives partitions their parts of a micro-batch of `rows` and `size` bytes, in the order in which they are to come.

    One with less than an equal share gives all it has. What is left goes to the others, each as much as it has until
    nothing is left: long ranges of few partitions make larger batches and transactions than short ones of all, and
    those that got nothing come first the next times.
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


def one_a_unit(partitions: Iterable[tuple[Partition, Hashable]], busy: Collection[Hashable]) -> list[Partition]:
    """Of each unit that is not busy, the first partition."""
    seen = set(busy)
    chosen = []
    for partition, unit in partitions:
        if unit not in seen:
            seen.add(unit)
            chosen.append(partition)
    return chosen


def without_room(
    tps: Iterable[TopicPartition], partitions: Mapping[TopicPartition, Partition], bytes_max: int
) -> set[TopicPartition]:
    """Of `tps`, those that are not open, or have enough waiting."""
    queued = sum(partition.queued_bytes for partition in partitions.values())
    share = max(PARTITION_BYTES_MIN, bytes_max // max(1, len(partitions)))
    full = set()
    for tp in tps:
        partition = partitions.get(tp)
        if queued >= bytes_max or partition is None or not partition.running or partition.queued_bytes >= share:
            full.add(tp)
    return full
