"""Bytewax: a dataflow that scores each batch of its Kafka source with one predict.

Bytewax does not commit to Kafka. At the end of an epoch, once the sink has flushed its results, the recovery store gets
the offset of each partition.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.inputs import StatefulSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from confluent_kafka import OFFSET_STORED

from bench.peers.scoring import Scorer
from bench.peers.task import PeerTask, collect_garbage_rarely, stop_signal, task_of_arguments

BATCH_RECORDS_MAX = 16_384
"""The sink flushes after each batch, so long ones are faster."""
EPOCH_S = 0.5
"""The interval of the other peers' commits."""

Request: TypeAlias = KafkaSourceMessage[bytes, bytes]
Result: TypeAlias = KafkaSinkMessage[bytes, bytes]


class StoppableSource(KafkaSource):  # type: ignore[misc]  # of another environment
    """A source that ends the dataflow on SIGTERM: Bytewax takes an interruption by a signal for a crash."""

    def __init__(self, stopping: threading.Event, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stopping = stopping

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> StoppablePartition:
        return StoppablePartition(super().build_part(step_id, for_part, resume_state), self._stopping)


class StoppablePartition(StatefulSourcePartition[Request, int]):  # type: ignore[misc]
    """A partition of the source."""

    def __init__(self, partition: StatefulSourcePartition[Request, int], stopping: threading.Event) -> None:
        self._partition, self._stopping = partition, stopping

    def next_batch(self) -> list[Request]:
        if self._stopping.is_set():
            raise StopIteration
        requests: list[Request] = self._partition.next_batch()
        return requests

    def snapshot(self) -> int:
        offset: int = self._partition.snapshot()
        return offset

    def close(self) -> None:
        self._partition.close()


def compose_flow(task: PeerTask, stopping: threading.Event) -> Dataflow:
    """Source, scoring and sink."""
    scorer, brokers = Scorer(task), [task.bootstrap_servers]

    def score(requests: list[Request]) -> list[Result]:
        results = scorer.results([request.value for request in requests])
        return [KafkaSinkMessage(request.key, result) for request, result in zip(requests, results, strict=True)]

    source = StoppableSource(
        stopping,
        brokers,
        [task.requests],
        # Where the store has no offset yet, the group's.
        starting_offset=OFFSET_STORED,
        add_config={"group.id": task.group, "auto.offset.reset": "earliest"},
        batch_size=BATCH_RECORDS_MAX,
    )
    # The sink does not look at reports of deliveries, so none may fail.
    sink = KafkaSink(
        brokers,
        task.results,
        {"acks": "all", "enable.idempotence": "true", "message.timeout.ms": "0", "linger.ms": "0"},
    )
    flow = Dataflow("bench")
    requests = op.input("requests", flow, source)
    results = op.flat_map_batch("score", requests, score)
    op.output("results", results, sink)
    return flow


def run(task: PeerTask) -> None:
    """Runs until SIGTERM."""
    store = Path(task.recovery_store)
    store.mkdir(parents=True)
    init_db_dir(store, 1)
    flow = compose_flow(task, stop_signal())
    collect_garbage_rarely()
    cli_main(
        flow,
        epoch_interval=timedelta(seconds=EPOCH_S),
        recovery_config=RecoveryConfig(str(store), backup_interval=timedelta(0)),
    )


if __name__ == "__main__":
    run(task_of_arguments())
