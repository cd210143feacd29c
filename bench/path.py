"""The whole path of a request through a worker in memory: fetched record batches to record batches of results.

`python -m bench.path`: inferd and a loop written by hand take turns in one process, on one thread, over requests that
are all different; µs of CPU a message, the best of the turns for each micro-batch, and the ratio. The loop reads and
writes record batches with aiokafka, and decodes and encodes as the loops of `python -m bench` do, without headers;
with `--own-headers`, each request has a `correlation-id` and a `traceparent` of its own, which its result has, too;
with `--rows 4`, each request lists so many rows, and its result their predictions.
Sockets, asyncio and the bookkeeping of partitions are in neither.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any

import lightgbm
import numpy as np
from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from rich.console import Console
from rich.table import Table

from bench.kernels import train
from bench.layouts import LAYOUTS, MODEL_ID
from bench.machine import CpuLedger
from bench.requests import PARTITIONS, Requests, make_requests
from bench.rows import Layout, inferd_catalog
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import Scorer
from inferd.streams.kafka import UNCHECKED, fill_batches
from inferd.streams.kafka.record_batches import PartitionRecords, RecordBatches
from inferd.streams.monitoring import Monitor
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.requests import BatchScoring, BatchSizer, RequestProcessor
from inferd.streams.settings import LaneSettings
from inferd.streams.telemetry import LaneMeasures

MEASURED = ("list-msgpack", "named-json")
SIZES = (256, 1_024, 4_096)
REQUESTS = 8_192
TOPICS = TenantTopics("bench", "default")
BATCH_BYTES = 2**24
DIGEST = "0" * 64
Fetched = list[tuple[TopicPartition, bytes]]
"""By partition, one record batch."""
Run = Callable[[Fetched], Awaitable[list[bytes]]]
"""Returns the record batches that would be sent to the results."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.path", description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--own-headers", action="store_true")
    parser.add_argument("--rows", type=int, default=0, help="rows that each request lists; 0: a row itself")
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    table = Table("layout", "micro-batch", "by hand µs", "inferd µs", "by hand / inferd")
    for layout in MEASURED:
        asyncio.run(compare(table, layout, options.turns, options.rows, own_headers=options.own_headers))
    console.print(table)
    console.print(f"others' load: {ledger.verdict()}")
    return 0


async def compare(table: Table, layout: str, turns: int, listed: int, *, own_headers: bool) -> None:
    """Adds the rows of a layout. `listed`: rows that each request lists; 0: it is a row itself."""
    text, requests = train(100, 31), listing(make_requests(REQUESTS * max(1, listed), "r", layout), listed)
    contenders = {"by hand": by_hand(text, layout, listed, own_headers=own_headers), "inferd": inferd(text, layout)}
    for size in SIZES:
        batches = [fetched(requests, first, size, own_headers=own_headers) for first in range(0, REQUESTS, size)]
        best = {name: [float("inf")] * len(batches) for name in contenders}
        for turn in range(turns):
            for number, batch in enumerate(batches):
                for name in sorted(contenders, reverse=bool((turn + number) % 2)):
                    begin = time.thread_time()
                    sent = await contenders[name](batch)
                    best[name][number] = min(best[name][number], time.thread_time() - begin)
                    assert sum(len(list(DefaultRecordBatch(bytearray(each)))) for each in sent) == size
        hand, own = (sum(best[name]) * 1e6 / REQUESTS for name in ("by hand", "inferd"))
        table.add_row(layout, f"{size:,}", f"{hand:.2f}", f"{own:.2f}", f"{hand / own:.2f}")


@dataclass(frozen=True, slots=True)
class ListedRows:
    """Requests that list the rows of others, `listed` of them each."""

    rows: Requests
    listed: int

    @property
    def layout(self) -> Any:
        return self.rows.layout

    def request_id(self, number: int) -> str:
        return self.rows.request_id(number)

    def key(self, number: int) -> bytes:
        return self.rows.key(number)

    def encode(self, number: int) -> bytes:
        """The request in its layout."""
        rows = self.rows.rows[number * self.listed : (number + 1) * self.listed]
        data = [self.layout.input_data(row.tolist()) for row in rows]
        encoded: bytes = self.layout.write({"id": self.request_id(number), "model_id": MODEL_ID, "input_data": data})
        return encoded


def listing(requests: Requests, listed: int) -> Requests | ListedRows:
    """Requests that list so many rows each; those given if 0."""
    return ListedRows(requests, listed) if listed else requests


def fetched(requests: Requests | ListedRows, first: int, size: int, *, own_headers: bool) -> Fetched:
    """A micro-batch as the broker has it, spread over the partitions."""
    now_ms = int(time.time() * 1000)
    parts = []
    for partition in range(PARTITIONS):
        builder = DefaultRecordBatchBuilder(
            2, 0, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=BATCH_BYTES
        )
        for offset, number in enumerate(range(first + partition, first + size, PARTITIONS)):
            value, headers = requests.encode(number), list(requests.layout.headers)
            if own_headers:
                trace = b"00-%032x-%016x-00" % (number + 1, number + 1)
                headers += [("correlation-id", requests.request_id(number).encode()), ("traceparent", trace)]
            builder.append(offset, now_ms - number % 10, requests.key(number), value, headers)
        parts.append((TopicPartition(TOPICS.name("requests"), partition), bytes(builder.build())))
    return parts


def inferd(text: bytes, name: str) -> Run:
    """What a worker does with default settings."""
    encoding = "json" if name.endswith("json") else "msgpack"
    catalog = inferd_catalog(text, Layout("", encoding, by_name=name.startswith("named")), (1,))
    measures, lane = LaneMeasures(), LaneSettings(inline_ms_max=1e9)
    scoring = BatchScoring(measures, BatchSizer(lane), PredictionRunner("bench", measures, 1e9), time.time)
    processor = RequestProcessor(TOPICS, Scorer(catalog, DEFAULT_LIMITS), "worker-1", UNCHECKED, scoring)
    processor.monitor = Monitor(TOPICS.name("model-stats"), "sampled", lambda _model, _version: None)
    PartitionRecords.lane_topics.add(TOPICS.name("requests"))
    read: Any = PartitionRecords  # aiokafka leaves its methods untyped
    results, producer = TOPICS.name("results"), a_producer()

    async def run(parts: Fetched) -> list[bytes]:
        work = [(tp, read(tp, RecordBatches(data), [], 0, None, None, True, 0).take(None)) for tp, data in parts]
        outputs = await processor.process(work)
        return [
            bytes(batch._build())  # noqa: SLF001
            for output in (each for several in outputs for each in several)
            for (topic, _), records in output.by_topic.items()
            for batch in (fill_batches(producer, records, 0) if topic == results else ())
        ]

    return run


def by_hand(text: bytes, name: str, listed: int, *, own_headers: bool) -> Run:
    """The loop of `bench/peers/aiokafka_loop.py`, without its connection."""
    booster, layout, producer = lightgbm.Booster(model_str=text.decode()), LAYOUTS[name], a_producer()

    async def run(parts: Fetched) -> list[bytes]:
        sent = []
        for _, data in parts:
            batch = DefaultRecordBatch(bytearray(data))
            assert batch.validate_crc()
            records = list(batch)
            requests = [layout.decode(record.value) for record in records]
            rows: Any = [request["input_data"] for request in requests]
            if listed:
                rows = chain.from_iterable(rows)
            matrix = np.array([layout.values(row) for row in rows])
            predictions: Any = booster.predict(matrix, num_threads=1)
            answers = producer.create_batch()
            values = predictions.tolist()
            if listed:
                values = [values[first : first + listed] for first in range(0, len(values), listed)]
            for record, request, prediction in zip(records, requests, values, strict=True):
                result = {"id": request["id"], "model_id": MODEL_ID, "version": 1, "digest": DIGEST}
                headers = [*record.headers] if own_headers else []
                value = layout.encode(result | {"prediction": prediction})
                answers.append(timestamp=0, key=record.key, value=value, headers=headers)
            sent.append(bytes(answers._build()))  # noqa: SLF001
        return sent

    return run


def a_producer() -> Any:
    """What filling batches needs of a producer."""
    accumulator = SimpleNamespace(_compression_type=0, _txn_manager=None)
    return SimpleNamespace(
        _message_accumulator=accumulator,
        create_batch=lambda: BatchBuilder(BATCH_BYTES, 0, is_transactional=False),
    )


if __name__ == "__main__":
    sys.exit(main())
