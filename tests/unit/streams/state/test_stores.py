"""Byte stores against a dictionary, and damaged or foreign RocksDB directories."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from inferd.schemas.errors import ServerError
from inferd.streams.inference.cache.partition import Change
from inferd.streams.state.stores import (
    ByteStores,
    MemoryStores,
    RocksStores,
)

KEYS = st.binary(min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=8)), max_size=20)


def make_memory(directory: Path) -> ByteStores:
    return MemoryStores()


def make_rocks(directory: Path) -> ByteStores:
    return RocksStores(directory / "tables")


@pytest.fixture(params=[make_memory, make_rocks], ids=["memory", "rocks"])
def make(request: pytest.FixtureRequest) -> Callable[[Path], ByteStores]:
    maker: Callable[[Path], ByteStores] = request.param
    return maker


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(CHANGES, max_size=6))
def test_a_store_is_a_dictionary_with_an_offset(
    make: Callable[[Path], ByteStores], tmp_path_factory: pytest.TempPathFactory, batches: list[list[Change]]
) -> None:
    store = make(tmp_path_factory.mktemp("stores")).open(3)
    model: dict[bytes, bytes] = {}
    assert len(store) == 0
    for offset, changes in enumerate(batches):
        store.write(changes, offset)
        for key, value in changes:
            model.pop(key, None)
            if value is not None:
                model[key] = value
        assert store.offset == offset
        assert dict(store.items()) == model
        assert len(store) == len(model)
        asked = [key for key, _ in changes] + [b"never"]
        assert store.get_many(asked) == [model.get(key) for key in asked] == [store.get(key) for key in asked]
    assert store.get_many([]) == []
    store.close()


def test_partitions_are_separate(make: Callable[[Path], ByteStores], tmp_path: Path) -> None:
    stores = make(tmp_path)
    one, two = stores.open(1), stores.open(2)
    one.write([(b"k", b"1")], 5)
    assert (two.get(b"k"), two.offset) == (None, None)
    one.close()
    two.close()


def test_a_closed_memory_store_is_empty_when_opened_again() -> None:
    store = MemoryStores().open(0)
    store.write([(b"k", b"v")], 9)
    store.close()
    assert (len(store), store.offset) == (0, None)


def test_rocksdb_persists_after_closing_and_is_removed_by_destroying(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path / "tables")
    store = stores.open(7)
    store.write([(b"a", b"1"), (b"b", b"2"), (b"a", None)], 41)
    store.close()
    again = stores.open(7)
    assert (dict(again.items()), again.offset) == ({b"b": b"2"}, 41)
    again.destroy()
    assert not (tmp_path / "tables" / "7").exists()
    anew = stores.open(7)
    assert (dict(anew.items()), anew.offset) == ({}, None)
    anew.close()


def test_rocksdb_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from inferd.streams.state.stores import RocksStores\n"
        "store = RocksStores(pathlib.Path(sys.argv[1])).open(0)\n"
        "for offset in range(100): store.write([(b'k%d' % offset, b'v')], offset)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    store = RocksStores(tmp_path).open(0)
    assert store.offset == 99
    assert dict(store.items()) == {b"k%d" % n: b"v" for n in range(100)}
    store.close()


def _fill(stores: RocksStores) -> Path:
    store = stores.open(0)
    store.write([(b"key%05d" % n, b"value" * 20) for n in range(20_000)], 77)
    store.close()
    # When it is opened again, entries of the log are in a table file.
    stores.open(0).close()
    return stores._directory / "0"


def _damage_a_block(path: Path) -> None:
    largest = max(path.glob("*.sst"), key=lambda each: each.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(bytes(data))


def _truncate_the_manifest(path: Path) -> None:
    manifest = next(path.glob("MANIFEST-*"))
    manifest.write_bytes(manifest.read_bytes()[: manifest.stat().st_size // 2])


def _name_a_missing_manifest(path: Path) -> None:
    (path / "CURRENT").write_bytes(b"MANIFEST-999999\n")


def _replace_by_a_file(path: Path) -> None:
    for each in path.iterdir():
        each.unlink()
    path.rmdir()
    path.write_bytes(b"not a directory")


def _replace_by_a_foreign_database(path: Path) -> None:
    import rocksdict

    for each in path.iterdir():
        each.unlink()
    database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    database[b"theirs"] = b"1"
    database.close()


def _damage_the_metadata(path: Path) -> None:
    import rocksdict

    database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    database[b""] = b"\xc1"
    database.close()


@pytest.mark.parametrize(
    "damage",
    [
        _damage_a_block,
        _truncate_the_manifest,
        _name_a_missing_manifest,
        _replace_by_a_file,
        _replace_by_a_foreign_database,
        _damage_the_metadata,
    ],
)
def test_a_broken_or_foreign_directory_is_recreated(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = _fill(RocksStores(tmp_path))
    damage(path)
    with capture_logs() as logs:
        store = RocksStores(tmp_path).open(0)
    assert (dict(store.items()), store.offset) == ({}, None)
    assert [entry["event"] for entry in logs] == ["store_rebuilt"]
    store.write([(b"k", b"v")], 1)
    store.close()


def test_the_entries_of_another_changelog_are_not_taken_over(tmp_path: Path) -> None:
    store = RocksStores(tmp_path, identity="topic-1").open(0)
    store.write([(b"k", b"v")], 1)
    store.close()
    same = RocksStores(tmp_path, identity="topic-1").open(0)
    assert same.offset == 1
    same.close()
    other = RocksStores(tmp_path, identity="topic-2").open(0)
    assert (other.get(b"k"), other.offset) == (None, None)
    other.close()


def test_a_directory_in_use_is_not_touched(tmp_path: Path) -> None:
    store = RocksStores(tmp_path).open(0)
    store.write([(b"k", b"v")], 1)
    with pytest.raises(ServerError, match="INFERD_DATA_DIR"):
        RocksStores(tmp_path).open(0)
    assert store.get(b"k") == b"v"
    store.close()


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ServerError, match="a store cannot be created there"):
        RocksStores(tmp_path / "file").open(0)


def test_all_stores_of_a_process_share_one_block_cache(tmp_path: Path) -> None:
    tables = [RocksStores(tmp_path / name, 1_048_576) for name in ("a", "b")]
    assert tables[0]._options is tables[1]._options
