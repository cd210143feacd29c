"""The partition of a record in the sink of a route."""

from __future__ import annotations

from functools import lru_cache

from aiokafka.partitioner import murmur2

_POSITIVE = 0x7FFFFFFF


@lru_cache(maxsize=65_536)
def hash_of(key: bytes) -> int:
    """The hash by which Kafka's default partitioner distributes keys."""
    hashed: int = murmur2(key)
    return hashed & _POSITIVE


def sink_partition(key: bytes | None, partition: int, offset: int, sources: int, sinks: int) -> int:
    """The same number if both topics have as many partitions; else that of Kafka's default partitioner for the key.

    Records without a key are spread by their offset, so that a repeated one has the same partition.
    """
    if sources == sinks:
        return partition
    if key is None:
        return (partition + offset) % sinks
    return hash_of(key) % sinks
