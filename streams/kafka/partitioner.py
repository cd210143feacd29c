"""Kafka's default partitioner."""

from __future__ import annotations

from functools import lru_cache

from aiokafka.partitioner import murmur2

_POSITIVE = 0x7FFFFFFF


@lru_cache(maxsize=65_536)
def _hash_of(key: bytes) -> int:
    hashed: int = murmur2(key)
    return hashed & _POSITIVE


def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition of a key in a topic with so many partitions."""
    return _hash_of(key) % partitions
