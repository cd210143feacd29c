"""Stores of one table partition: entries as bytes, with the changelog offset that they include."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec
import structlog

from inferd.schemas.errors import ServerError
from inferd.streams.inference.cache import Change
from inferd.streams.private_directory import private_directory

log = structlog.get_logger(__name__)


_FORMAT: Final = 1
_META_KEY: Final = b""
"""Entries never have an empty key: job ids and keys of predictions are longer."""
_WRITE_BUFFER_BYTES: Final = 4 * 1_048_576
_WRITE_BUFFERS_BYTES: Final = 32 * 1_048_576
"""Of all stores of the process together."""
_OPEN_FILES_MAX: Final = 64
"""Of one partition."""
_BLOOM_BITS: Final = 10


class ByteStore(Protocol):
    """The entries of one partition. Use it from one thread at a time, and not after `close`."""

    @property
    def offset(self) -> int | None:
        """The last changelog offset in the store; None if the changelog must be read from its beginning."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key."""

    def write(self, changes: Iterable[Change], offset: int) -> None:
        """Applies changes in order and stores the offset, atomically."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries; must not be interleaved with `write`."""

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Releases memory and files. The files stay, so that the partition opens quickly if it returns."""

    def destroy(self) -> None:
        """Closes it, and deletes its files."""


class ByteStores(Protocol):
    """The stores of one table."""

    def open(self, partition: int) -> ByteStore:
        """Opens the store of a partition with its previous content; may take a while; may be called in a thread."""


class MemoryStore:
    """Entries in a dictionary, in order of first insertion."""

    def __init__(self) -> None:
        self.offset: int | None = None
        self._entries: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """Like `ByteStore.get`."""
        return self._entries.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Like `ByteStore.get_many`."""
        return list(map(self._entries.get, keys))

    def write(self, changes: Iterable[Change], offset: int) -> None:
        """Like `ByteStore.write`."""
        entries = self._entries
        for key, value in changes:
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        self.offset = offset

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Like `ByteStore.items`."""
        return iter(self._entries.items())

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Like `ByteStore.close`."""
        self._entries, self.offset = {}, None

    def destroy(self) -> None:
        """Like `ByteStore.destroy`."""
        self.close()


class MemoryStores:
    """Stores that start empty."""

    def open(self, partition: int) -> MemoryStore:
        """Like `ByteStores.open`."""
        return MemoryStore()


class RocksStore:
    """Entries in RocksDB, in key order.

    Writes are not synced to the disk. A killed process loses nothing; what a crashed machine loses is read from the
    changelog again, since the offset is lost with it.
    """

    def __init__(self, path: Path, options: Any, identity: str) -> None:
        """Raises `ForeignStoreError` if the files belong to another store, and the exceptions of RocksDB if they are
        corrupt."""
        import rocksdict

        self._path = path
        self._identity = identity
        self._new_batch = rocksdict.WriteBatch
        private_directory(path.parent)
        self._db = rocksdict.Rdict(str(path), options)
        try:
            self.offset = self._verify()
        except BaseException:
            self._db.close()
            raise

    def _verify(self) -> int | None:
        """Reads everything once to detect corrupt blocks; returns the offset."""
        newest: bytes | None = self._db.get(_META_KEY)
        entries = len(self)
        if newest is None:
            if entries:
                raise ForeignStoreError(f"{self._path}: a RocksDB that is not one of ours")
            return None
        try:
            written, identity, offset = msgspec.msgpack.decode(newest, type=tuple[int, str, int])
        except msgspec.MsgspecError:
            raise ForeignStoreError(f"{self._path}: a RocksDB that is not one of ours") from None
        if (written, identity) != (_FORMAT, self._identity):
            raise ForeignStoreError(f"{self._path}: the entries of another changelog, or in another format")
        return offset

    def get(self, key: bytes) -> bytes | None:
        """Like `ByteStore.get`."""
        value: bytes | None = self._db.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Like `ByteStore.get_many`."""
        return cast(list[bytes | None], self._db.get(list(keys))) if keys else []

    def write(self, changes: Iterable[Change], offset: int) -> None:
        """Like `ByteStore.write`."""
        batch = self._new_batch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes:
            if value is None:
                delete(key)
            else:
                put(key, value)
        put(_META_KEY, msgspec.msgpack.encode((_FORMAT, self._identity, offset)))
        self._db.write(batch)
        self.offset = offset

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Like `ByteStore.items`."""
        at = self._db.iter()
        at.seek(_META_KEY + b"\0")
        while at.valid():
            yield cast(bytes, at.key()), cast(bytes, at.value())
            at.next()
        # Iteration by rocksdict ends silently at a corrupt block.
        at.status()

    def __len__(self) -> int:
        """Counts: RocksDB does not know the number of entries."""
        at, entries = self._db.iter(), 0
        at.seek(_META_KEY + b"\0")
        while at.valid():
            entries += 1
            at.next()
        at.status()
        return entries

    def close(self) -> None:
        """Like `ByteStore.close`."""
        self._db.close()

    def destroy(self) -> None:
        """Like `ByteStore.destroy`."""
        self._db.close()
        _delete(self._path)


class ForeignStoreError(Exception):
    """The files belong to another store."""


class RocksStores:
    """RocksDB with one directory per partition; all stores of the process share one block cache and the bound of write
    buffers.

    A directory that is corrupt, or belongs to another store, is deleted and created again.
    """

    def __init__(self, directory: Path, cache_bytes: int = 32 * 1_048_576, identity: str = "") -> None:
        """`identity`: of the changelog; offsets of another one are meaningless."""
        self._directory = directory
        self._identity = identity
        self._options = _options(cache_bytes)

    def open(self, partition: int) -> RocksStore:
        """Like `ByteStores.open`. Raises `ServerError` if another process has it open, or the disk fails."""
        path = self._directory / str(partition)
        try:
            return RocksStore(path, self._options, self._identity)
        except Exception as error:
            # rocksdict raises plain exceptions: only the text distinguishes a lock from corruption.
            if "lock hold" in str(error) or "/LOCK" in str(error):
                raise ServerError(
                    f"{path} is in use by another process: give each worker its own INFERD_DATA_DIR"
                ) from error
            log.warning("store_rebuilt", path=str(path), reason=str(error))
        try:
            _delete(path)
            return RocksStore(path, self._options, self._identity)
        except Exception as error:
            raise ServerError(f"{path}: a store cannot be created there: {error}") from error


@cache
def _options(cache_bytes: int) -> Any:
    """Options for all databases of the process: what shares them shares the block cache."""
    from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, WriteBufferManager

    blocks = BlockBasedOptions()
    # Without a shared cache, each database would allocate one of 2 GiB.
    blocks.set_block_cache(Cache(cache_bytes))
    blocks.set_bloom_filter(_BLOOM_BITS, block_based=False)
    blocks.set_cache_index_and_filter_blocks(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_write_buffer_manager(WriteBufferManager(_WRITE_BUFFERS_BYTES, allow_stall=False))
    options.set_max_total_wal_size(_WRITE_BUFFERS_BYTES)
    options.set_max_open_files(_OPEN_FILES_MAX)
    # Keys are hashes and values floats, which do not compress.
    options.set_compression_type(DBCompressionType.none())
    options.set_keep_log_file_num(1)
    return options


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
