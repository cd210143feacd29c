"""Quix Streams: a dataframe whose sink scores a batch of each partition at each checkpoint, and publishes the results.

Functions of a dataframe get one message at a time; a `BatchingSink` gets many. A checkpoint flushes the sink, then
commits.
"""

from __future__ import annotations

from confluent_kafka import KafkaError, Message, Producer
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from bench.peers.scoring import Scorer
from bench.peers.task import PeerTask, collect_garbage_rarely, task_of_arguments

CHECKPOINT_RECORDS = 16_384
CHECKPOINT_S = 0.5
"""A lone request waits that long for its result."""
POLL_S = 0.02


class ScoringSink(BatchingSink):  # type: ignore[misc]  # of another environment
    """Scores what has come since the last checkpoint, and waits until all results are acknowledged."""

    def __init__(self, task: PeerTask) -> None:
        super().__init__()
        self._topic, self._scorer = task.results, Scorer(task)
        self._failed: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": task.bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 0,
                "on_delivery": self._note_delivery,
            }
        )

    def write(self, batch: SinkBatch) -> None:
        requests = list(batch)
        results = self._scorer.results([request.value for request in requests])
        for request, result in zip(requests, results, strict=True):
            self._producer.produce(self._topic, result, request.key, batch.partition)

    def flush(self) -> None:
        super().flush()
        self._producer.flush()
        if self._failed is not None:
            raise RuntimeError(f"a result was not delivered: {self._failed}")

    def _note_delivery(self, error: KafkaError | None, _message: Message) -> None:
        self._failed = self._failed or error


def run(task: PeerTask) -> None:
    """Runs until SIGTERM, which the application handles."""
    app = Application(
        broker_address=task.bootstrap_servers,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_every=CHECKPOINT_RECORDS,
        commit_interval=CHECKPOINT_S,
        consumer_poll_timeout=POLL_S,
        consumer_extra_config={"fetch.wait.max.ms": 100},
        auto_create_topics=False,
        state_dir=f"{task.work_dir}/quix-{task.group}",
        loglevel="WARNING",
    )
    requests = app.topic(task.requests, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(requests).sink(ScoringSink(task))
    collect_garbage_rarely()
    app.run()


if __name__ == "__main__":
    run(task_of_arguments())
