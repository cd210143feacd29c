"""The pipelined aiokafka loop: the fastest hand-written loop, and the reference for comparison.

All waiting records are one micro-batch, scored on the event loop. Results are published as prepared batches, whose
acknowledgements are awaited while the next micro-batch is scored. The contiguous acknowledged offset is committed.
"""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import lightgbm
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import ConsumerRecord

from bench.layouts import LAYOUTS
from bench.peers.task import PeerTask, collect_garbage_rarely, task_of_arguments

BATCH_RECORDS_MAX = 1_024
BATCH_BYTES_MAX = 1_000_000
POLL_MS = 200
COMMIT_INTERVAL_S = 0.5
IN_FLIGHT_BATCHES_MAX = 64

Record = ConsumerRecord[bytes, bytes]
Scored = dict[int, list[tuple[bytes | None, bytes]]]


class AiokafkaLoop:
    """One consumer, one producer, one model, one event loop."""

    def __init__(self, task: PeerTask) -> None:
        self.task, self.layout = task, LAYOUTS[task.layout]
        self.booster = lightgbm.Booster(model_file=task.model_path)
        self.consumer = AIOKafkaConsumer(
            task.requests,
            bootstrap_servers=task.bootstrap_servers,
            group_id=task.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # A fetch that waits for an empty partition delays the records of the others.
            fetch_max_wait_ms=100,
        )
        self.producer = AIOKafkaProducer(
            bootstrap_servers=task.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES_MAX,
        )
        self.in_flight: dict[int, deque[tuple[int, asyncio.Future[object]]]] = defaultdict(deque)
        self.acknowledged: dict[int, int] = {}
        self.committed: dict[int, int] = {}

    async def run(self) -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with self.connected():
            committing = asyncio.create_task(self.commit_now_and_then())
            while not stopping.is_set():
                fetched = await self.consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS_MAX)
                if fetched:
                    await self.publish(fetched, self.score([record for each in fetched.values() for record in each]))
            committing.cancel()
            await self.finish()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        await self.producer.start()
        await self.consumer.start()
        try:
            yield
        finally:
            await self.consumer.stop()
            await self.producer.stop()

    def score(self, records: list[Record]) -> Scored:
        layout = self.layout
        requests = [layout.decode(record.value) for record in records]
        matrix = np.array([layout.values(request["input_data"]) for request in requests])
        predictions = self.booster.predict(matrix, num_threads=1).tolist()  # type: ignore[union-attr]
        scored: Scored = defaultdict(list)
        for record, request, prediction in zip(records, requests, predictions, strict=True):
            result = {
                "id": request["id"],
                "model_id": request["model_id"],
                "version": self.task.version,
                "digest": self.task.digest,
                "prediction": prediction,
            }
            scored[record.partition].append((record.key, layout.encode(result)))
        return scored

    async def publish(self, fetched: dict[TopicPartition, list[Record]], scored: Scored) -> None:
        for partition, records in fetched.items():
            number = partition.partition
            futures = [await self.send(number, pairs) for pairs in self.batches(scored[number])]
            self.in_flight[number].append((records[-1].offset + 1, futures[-1]))
        await self.await_room()

    def batches(self, pairs: list[tuple[bytes | None, bytes]]) -> Iterator[BatchBuilder]:
        builder = self.producer.create_batch()
        for key, value in pairs:
            if builder.append(key=key, value=value, timestamp=None) is None:
                yield builder
                builder = self.producer.create_batch()
                if builder.append(key=key, value=value, timestamp=None) is None:
                    raise RuntimeError(f"a result of {len(value)} bytes does not fit a batch")
        yield builder

    async def send(self, partition: int, batch: BatchBuilder) -> asyncio.Future[object]:
        batch.close()
        future: asyncio.Future[object] = await self.producer.send_batch(batch, self.task.results, partition=partition)
        return future

    async def await_room(self) -> None:
        self.note_acknowledged()
        while sum(len(queue) for queue in self.in_flight.values()) >= IN_FLIGHT_BATCHES_MAX:
            await asyncio.wait(
                [queue[0][1] for queue in self.in_flight.values() if queue], return_when="FIRST_COMPLETED"
            )
            self.note_acknowledged()

    def note_acknowledged(self) -> None:
        """Advances each partition over its acknowledged batches; raises the error of a failed delivery."""
        for partition, queue in self.in_flight.items():
            while queue and queue[0][1].done():
                next_offset, future = queue.popleft()
                future.result()
                self.acknowledged[partition] = next_offset

    async def commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            await self.commit()

    async def commit(self) -> None:
        self.note_acknowledged()
        news = {p: offset for p, offset in self.acknowledged.items() if offset != self.committed.get(p)}
        if news:
            await self.consumer.commit({TopicPartition(self.task.requests, p): offset for p, offset in news.items()})
            self.committed.update(news)

    async def finish(self) -> None:
        await asyncio.gather(*(future for queue in self.in_flight.values() for _, future in queue))
        await self.commit()


async def run(task: PeerTask) -> None:
    """Runs until SIGTERM; aiokafka's clients must be created within the event loop."""
    loop = AiokafkaLoop(task)
    collect_garbage_rarely()
    await loop.run()


if __name__ == "__main__":
    asyncio.run(run(task_of_arguments()))
