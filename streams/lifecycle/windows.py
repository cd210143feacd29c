"""The windows of one tenant on the worker that owns them: a table, and which windows there are of each version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from inferd.schemas.errors import MalformedError
from inferd.schemas.monitoring import WindowKey, WindowStats, decode_window
from inferd.streams.state import LaneTable, TablePartition
from inferd.streams.tasks import Slices

log = structlog.get_logger(__name__)

WINDOWS_MAX = 50_000
"""Windows of one tenant; beyond it, the oldest are removed early."""
Version = tuple[str, int]
"""Model id and number."""


@dataclass(slots=True, eq=False)
class WindowsPartition:
    """The windows of one partition, and which there are. Only the table has their values."""

    table: TablePartition
    by_minute: dict[int, set[WindowKey]] = field(default_factory=dict)
    by_version: dict[Version, dict[int, set[WindowKey]]] = field(default_factory=dict)
    count: int = 0

    def get(self, key: WindowKey) -> WindowStats | None:
        """The newest value of a window, acknowledged or not; None if there is none, or it is unreadable."""
        value = self.table.get(key.encode())
        if value is None:
            return None
        try:
            return decode_window(value)
        except MalformedError:
            log.exception("window_unreadable", key=str(key))
            return None

    def add(self, key: WindowKey) -> None:
        """Notes that a window exists."""
        keys = self.by_minute.setdefault(key.minute, set())
        if key not in keys:
            keys.add(key)
            self.by_version.setdefault((key.model_id, key.version), {}).setdefault(key.minute, set()).add(key)
            self.count += 1

    def expired(self, before_minute: int) -> list[WindowKey]:
        """Forgets windows before a minute, and the oldest beyond `WINDOWS_MAX`; returns them."""
        gone: list[WindowKey] = []
        for minute in sorted(self.by_minute):
            if minute >= before_minute and self.count <= WINDOWS_MAX:
                break
            gone += self._forget(minute)
        return gone

    def _forget(self, minute: int) -> Iterable[WindowKey]:
        keys = self.by_minute.pop(minute)
        self.count -= len(keys)
        for version in {(key.model_id, key.version) for key in keys}:
            minutes = self.by_version[version]
            del minutes[minute]
            if not minutes:
                del self.by_version[version]
        return keys


class WindowStore:
    """The windows of one tenant that this worker owns."""

    def __init__(self, tenant: str, table: LaneTable, kept_h: int) -> None:
        """`kept_h`: how long windows are kept, in hours."""
        self.slices = Slices()
        """Shared with other tenants of the worker."""
        self.tenant = tenant
        self.table = table
        self.kept_minutes = 60 * kept_h
        self.partitions: dict[int, WindowsPartition] = {}

    async def open(self, number: int) -> None:
        """Reads which windows a restored partition has."""
        partition = WindowsPartition(self.table.partition(number))
        await self.slices.run(partition.table.store.items(), partial(self._read, partition))
        self.partitions[number] = partition

    def reopen(self, number: int) -> None:
        """Reads it again, at once: changes were dropped."""
        if number in self.partitions and number in self.table.owned:
            partition = WindowsPartition(self.table.partition(number))
            self._read(partition, partition.table.store.items())
            self.partitions[number] = partition

    def _read(self, partition: WindowsPartition, items: Iterable[tuple[bytes, bytes]]) -> None:
        for encoded, _ in items:
            try:
                key = WindowKey.parse(encoded)
            except ValueError:
                log.warning("window_key_unreadable", tenant=self.tenant, key=encoded[:80])
            else:
                partition.add(key)

    def close(self, number: int) -> None:
        """Drops a revoked partition."""
        self.partitions.pop(number, None)

    @property
    def owned(self) -> bool:
        """Whether this worker owns the windows of the tenant."""
        return bool(self.partitions)

    def versions(self, model_id: str | None = None) -> list[Version]:
        """The versions that have windows, of one model or of all."""
        found = {version for partition in self.partitions.values() for version in partition.by_version}
        return sorted(version for version in found if model_id in (None, version[0]))

    def windows(self, model_id: str, version: int, since_minute: int) -> Sequence[WindowStats]:
        """The windows of a version from a minute on, in order of time; one for each variant and alias revision."""
        return [window for key in self._keys(model_id, version, since_minute) for window in self._values(key)]

    def _keys(self, model_id: str, version: int, since_minute: int) -> Iterator[WindowKey]:
        for partition in self.partitions.values():
            minutes = partition.by_version.get((model_id, version), {})
            for minute in sorted(minute for minute in minutes if minute >= since_minute):
                yield from sorted(minutes[minute])

    def _values(self, key: WindowKey) -> Iterator[WindowStats]:
        for partition in self.partitions.values():
            if (window := partition.get(key)) is not None:
                yield window
