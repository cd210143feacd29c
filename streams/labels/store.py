"""The predictions that wait for labels, and the labels that wait for predictions, of one tenant on their owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog

from inferd.streams.labels.join import Entry
from inferd.streams.state import LaneTable, TablePartition
from inferd.streams.tasks import Slices

log = structlog.get_logger(__name__)

ENTRIES_MAX = 1_000_000
"""Entries of one partition; beyond it, the oldest are removed early."""
BUCKET_MS = 10_000
"""Entries expire together by so many milliseconds."""
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Entry).decode


def encode_entry(entry: Entry) -> bytes:
    """The value of an entry in the table."""
    return _encode(entry)


@dataclass(slots=True, eq=False)
class LabelsPartition:
    """The entries of one partition, and when each expires. Only the table has their values."""

    table: TablePartition
    buckets: dict[int, dict[bytes, None]] = field(default_factory=dict)
    expiry: dict[bytes, int] = field(default_factory=dict)
    """Key -> its bucket."""

    def get(self, key: bytes) -> Entry | None:
        """The newest value of an entry; None if there is none, or it is unreadable."""
        value = self.table.get(key)
        if value is None:
            return None
        try:
            return _decode(value)
        except msgspec.DecodeError:
            log.exception("label_entry_unreadable", key=key[:80])
            return None

    def add(self, key: bytes, entry: Entry) -> None:
        """Notes when an entry expires."""
        self._forget(key)
        bucket = entry.expires_ms // BUCKET_MS
        self.expiry[key] = bucket
        self.buckets.setdefault(bucket, {})[key] = None

    def expired(self, now_ms: int, entries_max: int) -> list[bytes]:
        """Forgets entries that have expired, and the oldest beyond `ENTRIES_MAX`; at most `entries_max`."""
        gone: list[bytes] = []
        while self.buckets and len(gone) < entries_max:
            first = min(self.buckets)
            if (first + 1) * BUCKET_MS > now_ms and len(self.expiry) <= ENTRIES_MAX:
                break
            for key in list(self.buckets[first])[: entries_max - len(gone)]:
                self._forget(key)
                gone.append(key)
        return gone

    def _forget(self, key: bytes) -> None:
        bucket = self.expiry.pop(key, None)
        if bucket is not None:
            keys = self.buckets[bucket]
            del keys[key]
            if not keys:
                del self.buckets[bucket]


class LabelStore:
    """The entries of one tenant, by partition of `labels`."""

    def __init__(self, tenant: str, table: LaneTable) -> None:
        self.slices = Slices()
        """Shared with other tenants of the worker."""
        self.tenant = tenant
        self.table = table
        self.partitions: dict[int, LabelsPartition] = {}

    async def open(self, number: int) -> None:
        """Reads when the entries of a restored partition expire."""
        partition = LabelsPartition(self.table.partition(number))
        await self.slices.run(partition.table.store.items(), partial(self._read, partition))
        self.partitions[number] = partition

    def reopen(self, number: int) -> None:
        """Reads it again, at once: changes were dropped."""
        if number in self.partitions and number in self.table.owned:
            partition = LabelsPartition(self.table.partition(number))
            self._read(partition, partition.table.store.items())
            self.partitions[number] = partition

    def _read(self, partition: LabelsPartition, items: Iterable[tuple[bytes, bytes]]) -> None:
        for key, _ in items:
            # Unreadable ones expire at once.
            partition.add(key, partition.get(key) or Entry(0))

    def close(self, number: int) -> None:
        """Drops a revoked partition."""
        self.partitions.pop(number, None)
