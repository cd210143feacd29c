"""The time to restore the prediction cache from its changelog, compared with a consumer that fills a dict.

    python -m bench.cache_restore [--entries 1000000]

The entries are those of one-row requests to a model of 100 trees, written in transactions to as many partitions as a
tenant has. One in ten entries is written twice, and there is one aborted transaction for every ten
committed ones.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from bench.cache_gain import Workload, served
from bench.cluster import running_broker
from bench.errors import BenchError
from bench.machine import CpuLedger
from bench.requests import PARTITIONS
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.topics import DEFAULT_TENANT
from inferd.streams.connection import client_options
from inferd.streams.faust_app import create_app
from inferd.streams.kafka import changelog_config, produce_changes
from inferd.streams.settings import (
    CacheSettings,
    GroupSettings,
    Store,
    StreamSettings,
    TopicSettings,
)
from inferd.streams.state import (
    Change,
    LaneTable,
    MemoryStore,
    Restore,
    TablePartition,
    make_table,
)

TENANT = DEFAULT_TENANT
OF_A_TRANSACTION = 2_048
SEED = 7


class Changelog:
    """The changelog of a table without an owner."""

    def __init__(self, bootstrap_servers: str, directory: Path) -> None:
        self._connection = KafkaConnection(bootstrap_servers=bootstrap_servers)
        self._group = f"bench-{secrets.token_hex(3)}"
        self._directory = directory
        self.topic = self.table("memory")[1].changelog

    def table(self, store: Store) -> tuple[StreamSettings, LaneTable]:
        """The table, configured as in a worker."""
        settings = StreamSettings(
            self._connection,
            "bench",
            self._directory,
            group=GroupSettings(group_id=self._group),
            topics=TopicSettings(partitions=PARTITIONS),
            cache=CacheSettings(store=store),
        )
        kept = self._directory / "tables" if store == "rocksdb" else None
        return settings, make_table(create_app(settings), settings, TENANT, "predictions", kept)

    async def create(self) -> None:
        admin = AIOKafkaAdminClient(**client_options(self._connection))
        await admin.start()
        config = dict(changelog_config("predictions", 3_600))
        await admin.create_topics([NewTopic(self.topic, PARTITIONS, 1, topic_configs=config)])
        await admin.close()

    async def fill(self, number: int, entries: int, samples: Sequence[Change]) -> None:
        """Writes `entries` entries of a partition with distinct keys, and values drawn from `samples`."""
        chance = random.Random(f"{SEED}/{number}")
        keys = [chance.randbytes(len(samples[0][0])) for _ in range(entries)]
        keys += chance.sample(keys, entries // 10)
        producer = AIOKafkaProducer(
            **client_options(self._connection), transactional_id=f"{self.topic}-{number}", retry_backoff_ms=5
        )
        await producer.start()
        partition = TablePartition(self.topic, number, MemoryStore())
        for start in range(0, len(keys), OF_A_TRANSACTION):
            changes = [(key, chance.choice(samples)[1]) for key in keys[start : start + OF_A_TRANSACTION]]
            await _transaction(producer, partition, changes)
            if start % (10 * OF_A_TRANSACTION) == 0:
                await _transaction(producer, partition, [(key, b"given up") for key, _ in changes], commit=False)
        await producer.stop()

    async def restore(self, store: Store) -> tuple[float, int]:
        """Restores the table; returns seconds and the number of entries."""
        settings, table = self.table(store)
        try:
            started = time.perf_counter()
            owned = [(table, partition) for partition in await table.retain(set(range(PARTITIONS)))]
            await Restore(settings, lambda: None).run(owned)
            return time.perf_counter() - started, sum(len(partition.store) for _, partition in owned)
        finally:
            await table.close()

    async def read_by_hand(self) -> tuple[float, int]:
        """Restores into a dict with a plain consumer; returns seconds and the number of entries."""
        started = time.perf_counter()
        consumer = AIOKafkaConsumer(
            **client_options(self._connection), isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await consumer.start()
        tps = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        entries: dict[bytes | None, bytes] = {}
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    if record.value is None:
                        entries.pop(record.key, None)
                    else:
                        entries[record.key] = record.value
        took_s = time.perf_counter() - started
        await consumer.stop()
        return took_s, len(entries)


async def _transaction(
    producer: AIOKafkaProducer, partition: TablePartition, changes: Sequence[Change], *, commit: bool = True
) -> None:
    await producer.begin_transaction()
    sent = await produce_changes(producer, partition.topic, partition.number, changes, int(time.time() * 1000))
    await asyncio.gather(*(future for future, _ in sent))
    await (producer.commit_transaction() if commit else producer.abort_transaction())


async def measure(bootstrap_servers: str, directory: Path, entries: int, console: Console) -> None:
    changelog = Changelog(bootstrap_servers, directory)
    await changelog.create()
    written = [change for change in Workload(served(100)).fills() if change[1] is not None]
    await asyncio.gather(*(changelog.fill(number, entries // PARTITIONS, written) for number in range(PARTITIONS)))
    by_hand_s, expected = await changelog.read_by_hand()
    table = Table(title=f"{expected:,} entries of {PARTITIONS} partitions")
    for column in ("", "seconds", "hand-written / this"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("aiokafka consumer into a dict", f"{by_hand_s:.1f}", "")
    ways: list[tuple[str, Store]] = [
        ("inferd, memory", "memory"),
        ("inferd, RocksDB", "rocksdb"),
        ("inferd, RocksDB with existing files", "rocksdb"),
    ]
    for name, store in ways:
        took_s, found = await changelog.restore(store)
        if found != expected:
            raise BenchError(f"{name}: {found:,} entries instead of {expected:,}")
        table.add_row(name, f"{took_s:.1f}", f"{by_hand_s / took_s:.2f}")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; exit code 0, or 1 if a measurement is invalid."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache_restore", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running Kafka; default: an embedded one")
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    try:
        with tempfile.TemporaryDirectory(prefix="inferd-bench-") as directory:
            path = Path(directory)
            with running_broker(options.broker, path) as (bootstrap_servers, _):
                asyncio.run(measure(bootstrap_servers, path, options.entries, console))
    except BenchError as error:
        console.print(f"bench: {error.message}", markup=False)
        return 1
    console.print(f"load of other processes: {ledger.verdict()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
