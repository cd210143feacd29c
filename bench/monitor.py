"""What monitoring costs a worker: the same requests scored and turned into output, with monitoring off, sampled, all.

`python -m bench.monitor`: the three take turns in one process, on one thread, over the same requests with 30 features
in four partitions. CPU time a request, from fetched bytes to output batches, the best of the turns for each
micro-batch, and the ratio to `off`. Reading from and writing to Kafka are not in it: of all that a worker does for a
request, monitoring is a smaller share.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, get_args

import msgpack
import numpy as np
from aiokafka import ConsumerRecord, TopicPartition
from rich.console import Console
from rich.table import Table

from bench.kernels import train
from bench.layouts import FEATURES
from bench.machine import CpuLedger
from bench.rows import SEED, Layout, inferd_catalog
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias
from inferd.schemas.monitoring import Baseline
from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import ModelCatalog, Scorer
from inferd.streams.kafka import UNCHECKED
from inferd.streams.lane import Work
from inferd.streams.monitoring import Monitor, PredictionCounter, make_baseline
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.requests import BatchScoring, BatchSizer, RequestProcessor
from inferd.streams.settings import LaneSettings, Monitoring
from inferd.streams.telemetry import LaneMeasures

SIZES = (16, 256, 1_024, 4_096)
REQUESTS = 8_192
PARTITIONS = 4
TOPICS = TenantTopics("bench", "default")
MODES: tuple[Monitoring, ...] = get_args(Monitoring)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.monitor", description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    console.print(asyncio.run(compare(options.turns)))
    console.print(f"others' load: {ledger.verdict()}")
    return 0


async def compare(turns: int) -> Table:
    """The table of all sizes of micro-batches."""
    catalog = inferd_catalog(train(100, 31), Layout("", "msgpack", by_name=False), (1,))
    catalog.put_alias("bench", "champion", Alias(version=1, revision=3))
    baseline = baseline_of(catalog)
    processors = {mode: processor(catalog, mode, baseline) for mode in MODES}
    columns = [f"{mode} µs" for mode in MODES] + [f"{mode} / off" for mode in MODES[1:]]
    table = Table("micro-batch", *columns, "delta bytes (all)")
    for size in SIZES:
        taken, delta = await turn_by_turn(processors, size, turns)
        off, *others = taken.values()
        table.add_row(
            f"{size:,}", *(f"{each:.2f}" for each in taken.values()), *(f"{each / off:.3f}" for each in others),
            f"{delta:,}",
        )  # fmt: skip
    return table


def baseline_of(catalog: ModelCatalog) -> Baseline:
    """Of rows like those of the requests."""
    version = catalog.version("bench", 1)
    assert version is not None
    assert version.served is not None
    rows = np.random.default_rng(SEED + 1).normal(size=(10_000, FEATURES))
    predictions = PredictionCounter(version.served).count(
        version.served.runtime.predict(rows, ("prediction",)), slice(None)
    )
    return make_baseline(version.served.features, rows, predictions, 1, "given")


def processor(catalog: ModelCatalog, mode: Monitoring, baseline: Baseline) -> RequestProcessor:
    """The processor of a worker."""
    measures, lane = LaneMeasures(), LaneSettings(inline_ms_max=1e9)
    scoring = BatchScoring(measures, BatchSizer(lane), PredictionRunner("bench", measures, 1e9), time.time)
    made = RequestProcessor(TOPICS, Scorer(catalog, DEFAULT_LIMITS), "w", UNCHECKED, scoring)
    made.monitor = Monitor(TOPICS.name("model-stats"), mode, lambda _model, _version: baseline)
    return made


async def turn_by_turn(
    processors: dict[Monitoring, RequestProcessor], size: int, turns: int
) -> tuple[dict[Monitoring, float], int]:
    """µs a request of each mode: the best of the turns for each micro-batch. And the bytes of a delta with `all`."""
    batches = [work_of(first, size) for first in range(0, REQUESTS, size)]
    best = {mode: [float("inf")] * len(batches) for mode in processors}
    delta = 0
    for turn in range(turns):
        for number, work in enumerate(batches):
            for place in range(len(MODES)):
                mode = MODES[(turn + number + place) % len(MODES)]
                begin = time.thread_time()
                outputs = await processors[mode].process(work)
                best[mode][number] = min(best[mode][number], time.thread_time() - begin)
                if mode == "all":
                    delta = max(delta, delta_bytes(outputs))
    return {mode: sum(taken) * 1e6 / REQUESTS for mode, taken in best.items()}, delta


def delta_bytes(outputs: Any) -> int:
    """The bytes of the first record of `model-stats`."""
    written = outputs[0][0].by_topic.get((TOPICS.name("model-stats"), 0), [(b"", b"", [])])
    return len(written[0][1] or b"")


def work_of(first: int, size: int) -> Work:
    """A micro-batch, spread over the partitions."""
    rows = np.random.default_rng(SEED + first).normal(size=(size, FEATURES)).tolist()
    now_ms = int(time.time() * 1000)
    parts: list[tuple[TopicPartition, list[Any]]] = [
        (TopicPartition(TOPICS.name("requests"), number), []) for number in range(PARTITIONS)
    ]
    for number, row in enumerate(rows):
        value = msgpack.packb({"id": f"r{first + number:08d}", "model_id": "bench", "input_data": row})
        tp, records = parts[number % PARTITIONS]
        records.append(
            ConsumerRecord(*tp, first + number, now_ms - number % 50, 0, None, value, None, 0, len(value), ())
        )  # fmt: skip
    return parts


if __name__ == "__main__":
    sys.exit(main())
