"""FastStream: a batch subscriber, one predict for each batch, results published as one batch for each partition.

The batch is acknowledged, that is, its offsets are committed, once the handler has returned: after all results are
acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from aiokafka import ConsumerRecord
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaPublishMessage

from bench.peers.scoring import Scorer
from bench.peers.task import PeerTask, collect_garbage_rarely, task_of_arguments

BATCH_RECORDS_MAX = 2_048
BATCH_BYTES_MAX = 1_000_000
"""Results that do not fit one batch are an error."""
BATCH_WAIT_MS = 10
FETCH_WAIT_MS = 100

Record = ConsumerRecord[bytes, bytes]


async def fetched(message: KafkaMessage) -> tuple[Record, ...]:
    """The decoder: the records as they are, since the default one makes a message of each."""
    records: tuple[Record, ...] = message.raw_message
    return records


def compose_app(task: PeerTask) -> FastStream:
    """A broker with one subscriber."""
    scorer = Scorer(task)
    broker = KafkaBroker(
        task.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES_MAX,
        apply_types=False,  # no validation of arguments
        logger=logging.getLogger("faststream"),
        log_level=logging.DEBUG,  # no line for each batch
    )

    @broker.subscriber(  # type: ignore[untyped-decorator]  # of another environment
        task.requests,
        group_id=task.group,
        batch=True,
        max_records=BATCH_RECORDS_MAX,
        batch_timeout_ms=BATCH_WAIT_MS,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=fetched,
    )
    async def score(records: tuple[Record, ...]) -> None:
        results: dict[int, list[KafkaPublishMessage]] = defaultdict(list)
        values = scorer.results([record.value or b"" for record in records])
        for record, value in zip(records, values, strict=True):
            results[record.partition].append(KafkaPublishMessage(value, key=record.key))
        await asyncio.gather(
            *(
                broker.publish_batch(*messages, topic=task.results, partition=partition)
                for partition, messages in results.items()
            )
        )

    return FastStream(broker, logger=None)


async def run(task: PeerTask) -> None:
    """Runs until SIGTERM, which the application handles."""
    app = compose_app(task)
    collect_garbage_rarely()
    await app.run()


if __name__ == "__main__":
    asyncio.run(run(task_of_arguments()))
