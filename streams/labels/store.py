"""The predictions that wait for labels, and the labels that wait for predictions, of one tenant on their owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import islice

import msgspec
import structlog

from inferd.streams.labels.join import Entry
from inferd.streams.state import LaneTable, TablePartition
from inferd.streams.tasks import Slices

log = structlog.get_logger(__name__)

ENTRIES_MAX = 1_000_000
"""Entries of one partition; beyond it, those that expire first are removed early."""
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
    unacked: Counter[bytes] = field(default_factory=Counter)
    """Keys with changes that the table has not acknowledged, and how many."""
    _order: list[int] = field(default_factory=list)
    """Heap of the numbers of buckets; some are gone."""

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
        if bucket not in self.buckets:
            self.buckets[bucket] = {}
            heappush(self._order, bucket)
        self.buckets[bucket][key] = None

    def expired(self, now_ms: int, entries_max: int) -> list[bytes]:
        """Forgets entries that have expired, and beyond `ENTRIES_MAX` those that expire first; at most
        `entries_max`."""
        gone: list[bytes] = []
        while self._order and len(gone) < entries_max:
            first = self._order[0]
            if first not in self.buckets:
                heappop(self._order)
                continue
            if (first + 1) * BUCKET_MS > now_ms and len(self.expiry) <= ENTRIES_MAX:
                break
            for key in list(islice(self.buckets[first], entries_max - len(gone))):
                self._forget(key)
                gone.append(key)
        return gone

    def acked(self, keys: Iterable[bytes]) -> None:
        """The table has acknowledged a change of each of these entries."""
        self.unacked.subtract(keys)
        self.unacked += Counter()  # drops what is zero

    def rewound(self) -> None:
        """Changes that were not acknowledged are gone from the table: those entries are looked up again."""
        for key in self.unacked:
            entry = self.get(key)
            if entry is not None:
                self.add(key, entry)
            else:
                self._forget(key)
        self.unacked.clear()

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

    def rewound(self, number: int) -> None:
        """Changes of an open partition that were not acknowledged were dropped."""
        if number in self.partitions and number in self.table.owned:
            self.partitions[number].rewound()

    def _read(self, partition: LabelsPartition, items: Iterable[tuple[bytes, bytes]]) -> None:
        for key, _ in items:
            # Unreadable ones expire at once.
            partition.add(key, partition.get(key) or Entry(0))

    def close(self, number: int) -> None:
        """Drops a revoked partition."""
        self.partitions.pop(number, None)
