"""Changelog-backed tables that a lane writes in batches. They are restored in bulk after the previous owner is fenced.

Name, changelog and registration in the app are those of a Faust table. Faust's own recovery is not used: it takes 200
µs per record, misreads transactions, and runs before the previous owner is fenced. Entries are raw bytes by partition.
Changes in flight to the changelog are read from an overlay, and applied to the store once they are acknowledged.

Of Faust's, `TableManager.add`, `__bool__`, `_update_channels` and `on_start`, and of `Table` `_new_store` are
overridden; each is covered by `tests/unit/streams/state/test_tables.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import faust
import structlog
from faust.stores.base import Store
from faust.tables.manager import TableManager
from faust.types import CollectionT

from inferd.streams.inference.cache import Change
from inferd.streams.kafka import TableName, changelog_name, table_name, table_partitions
from inferd.streams.settings import StreamSettings
from inferd.streams.state.stores import (
    ByteStore,
    ByteStores,
    MemoryStores,
    RocksStores,
)
from inferd.streams.tasks import all_of

log = structlog.get_logger(__name__)

OpenStore = Callable[[int], ByteStore]
"""Partition number -> its store."""
OPENED_AT_ONCE = 2
"""Number of stores opened at once, over all tables. Opening reads the whole store; more at once would delay the event
loop."""
_opening_threads = ThreadPoolExecutor(OPENED_AT_ONCE, thread_name_prefix="inferd-tables")


class TablePartition:
    """The entries of one owned partition: acknowledged ones, and an overlay of those in flight."""

    def __init__(self, topic: str, number: int, store: ByteStore) -> None:
        self.topic = topic
        """The changelog."""
        self.number = number
        self.store = store
        self._pending: dict[bytes, tuple[bytes | None, int]] = {}
        """Key -> newest value in flight, and the number of changes in flight."""

    def __repr__(self) -> str:
        return f"<{self.topic}/{self.number}>"

    def get(self, key: bytes) -> bytes | None:
        """The newest value, acknowledged or not; None if absent."""
        pending = self._pending.get(key)
        return pending[0] if pending is not None else self.store.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The newest value of each key."""
        pending = self._pending
        if not pending:
            return self.store.get_many(keys)
        values = iter(self.store.get_many([key for key in keys if key not in pending]))
        return [pending[key][0] if key in pending else next(values) for key in keys]

    def stage(self, changes: Iterable[Change]) -> None:
        """Adds changes that are about to be published."""
        pending = self._pending
        for key, value in changes:
            before = pending.get(key)
            pending[key] = (value, 1 if before is None else before[1] + 1)

    def apply(self, changes: Sequence[Change], offset: int) -> None:
        """Applies acknowledged changes; `offset` is that of the last one in the changelog."""
        self.store.write(changes, offset)
        pending = self._pending
        for key, _ in changes:
            value, count = pending.get(key, (None, 0))
            if count > 1:
                pending[key] = (value, count - 1)
            elif count:
                del pending[key]

    def restore(self, changes: Sequence[Change], offset: int) -> None:
        """Applies changes read from the changelog, up to and including `offset`."""
        self.store.write(changes, offset)

    def discard(self) -> None:
        """Discards the changes in flight."""
        self._pending.clear()

    @property
    def pending(self) -> int:
        """Number of keys in flight."""
        return len(self._pending)


class LaneStore(Store[bytes, bytes]):
    """A read-only mapping over the owned partitions of a table."""

    def __post_init__(self) -> None:
        self.partitions: dict[int, TablePartition] = {}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.partitions = {}

    def __getitem__(self, key: bytes) -> bytes:
        for partition in self.partitions.values():
            if (value := partition.get(key)) is not None:
                return value
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(partition.get(cast(bytes, key)) is not None for partition in self.partitions.values())

    def __iter__(self) -> Iterator[bytes]:
        for partition in self.partitions.values():
            yield from (key for key, _ in partition.store.items())

    def __len__(self) -> int:
        return sum(len(partition.store) for partition in self.partitions.values())

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise TypeError("only a lane writes this table, with its output batches")

    def __delitem__(self, key: bytes) -> None:
        raise TypeError("only a lane writes this table, with its output batches")

    def apply_changelog_batch(self, *_: Any, **__: Any) -> None:
        raise TypeError("this table is restored in bulk, by its lane")

    def reset_state(self) -> None:
        """Faust calls this when it restarts; the lane decides which partitions are owned."""

    _clear = reset_state

    async def backup_partition(self, *_: Any, **__: Any) -> None:
        return

    def restore_backup(self, *_: Any, **__: Any) -> None:
        return


class LaneTable(faust.Table):  # type: ignore[type-arg]
    """A Faust table whose partitions are opened and closed by the lane."""

    open_store: OpenStore
    changelog: str
    """Name of the changelog topic; Faust names it so, too."""
    opening: dict[int, asyncio.Future[ByteStore]]
    """Stores being opened. A cancelled takeover leaves them to the next one: a store cannot be opened twice."""

    def _new_store(self) -> LaneStore:
        return LaneStore("memory://", self.app, self, table_name=self.name, loop=self.loop)

    @property
    def owned(self) -> dict[int, TablePartition]:
        """All open partitions, by number."""
        return cast(LaneStore, self.data).partitions

    def partition(self, number: int) -> TablePartition:
        """An owned partition; `KeyError` if it is not owned."""
        return self.owned[number]

    async def retain(self, numbers: set[int]) -> list[TablePartition]:
        """Closes every partition not in `numbers`, opens the missing ones, and returns all.

        One that stays keeps its entries: writes of another owner meanwhile are read from the changelog. Stores are
        opened in threads, so that heartbeats continue.
        """
        for number in [number for number in self.owned if number not in numbers]:
            self.owned.pop(number).store.close()
        await all_of(self._drop_opening(number) for number in set(self.opening) - numbers)
        await all_of(self._open(number) for number in numbers - set(self.owned))
        return [self.owned[number] for number in sorted(numbers)]

    async def reopen(self, partition: TablePartition) -> None:
        """Deletes the entries of a partition, to restore it from the beginning of its changelog."""
        number = partition.number
        del self.owned[number]
        self.opening[number] = _in_thread(self._replace, partition.store, number)
        partition.store = await self._opened(number)
        self.owned[number] = partition

    async def close(self) -> None:
        """Closes every store."""
        await self.retain(set())

    async def _open(self, number: int) -> None:
        if number not in self.opening:
            self.opening[number] = _in_thread(self.open_store, number)
        self.owned[number] = TablePartition(self.changelog, number, await self._opened(number))

    def _replace(self, store: ByteStore, number: int) -> ByteStore:
        store.destroy()
        return self.open_store(number)

    async def _drop_opening(self, number: int) -> None:
        (await self._opened(number)).close()

    async def _opened(self, number: int) -> ByteStore:
        """The store being opened; the opening continues if the caller is cancelled."""
        try:
            store = await asyncio.shield(self.opening[number])
        except Exception:
            del self.opening[number]
            raise
        del self.opening[number]
        return store


def _in_thread(function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(_opening_threads, function, *arguments)


def make_table(
    app: faust.App, settings: StreamSettings, tenant: str, table: TableName, directory: Path | None
) -> LaneTable:
    """An empty table of the app; its changelog is `changelog_name`. `directory`: for local stores; None keeps entries
    in memory."""
    name = table_name(tenant, table)
    made = LaneTable(
        app, name=name, key_type=bytes, value_type=bytes, partitions=table_partitions(table, settings.topics)
    )
    made.changelog = changelog_name(settings.group.group_id, tenant, table)
    stores = _stores(settings, made, directory)
    made.open_store = stores.open
    made.opening = {}
    app.tables.add(made)
    return made


def _stores(settings: StreamSettings, table: LaneTable, directory: Path | None) -> ByteStores:
    if directory is None:
        return MemoryStores()
    return RocksStores(directory / table.name, settings.cache.block_cache_bytes, table.changelog)


class LaneTableManager(TableManager):
    """Faust's tables without its recovery: changelogs are neither subscribed to nor read by the group's consumer."""

    def __bool__(self) -> bool:
        """False, although there are tables: Faust then has nothing to recover after a rebalance, and its recovery
        cannot fail."""
        return False

    def add(self, table: CollectionT) -> CollectionT:
        self[table.name] = table
        return table

    async def on_start(self) -> None:
        """Skips the second that Faust waits for tables to be declared, because they are declared already."""
        await self._update_channels()
        await self.recovery.start()

    async def _update_channels(self) -> None:
        self._tables_finalized.set()
        self._tables_registered.set()
