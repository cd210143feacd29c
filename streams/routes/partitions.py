"""The partition of a record in the sink of a route."""

from __future__ import annotations

from inferd.streams.kafka import partition_of_key


def sink_partition(key: bytes | None, partition: int, offset: int, sources: int, sinks: int) -> int:
    """The same number if both topics have as many partitions; else that of Kafka's default partitioner for the key.

    Records without a key are spread by their offset, so that a repeated one has the same partition.
    """
    if sources == sinks:
        return partition
    if key is None:
        return (partition + offset) % sinks
    return partition_of_key(key, sinks)
