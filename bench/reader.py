"""The reader of results: polls them one by one, records the time of each, and writes them at the end."""

from __future__ import annotations

import gc
import sys
import time

import msgspec
from confluent_kafka import Consumer, TopicPartition

from bench.load import READY, LoadTask, Received, say, task_of_arguments

# consume(n, timeout) would wait for all n or the whole timeout; poll returns each result immediately.
POLL_S = 0.1


def main() -> None:
    task = task_of_arguments()
    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap_servers,
            "group.id": "bench-load-reader",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 500,
            "fetch.min.bytes": 1,
        }
    )
    consumer.assign([TopicPartition(task.results, number, offset) for number, offset in enumerate(task.begin)])
    consumer.poll(POLL_S)
    gc.disable()
    say(READY)
    received = receive(task, consumer)
    consumer.close()
    sys.stdout.buffer.write(msgspec.msgpack.encode(received))


def receive(task: LoadTask, consumer: Consumer) -> Received:
    """Receives results until all have arrived, or none has arrived for a while."""
    at_s: list[float] = []
    values: list[bytes] = []
    heard_s = time.monotonic()
    while len(values) < task.count and time.monotonic() - heard_s < task.silence_s:
        message = consumer.poll(POLL_S)
        if message is not None and message.error() is None:
            heard_s = time.monotonic()
            at_s.append(heard_s)
            values.append(message.value() or b"")
    return Received(at_s, values)


if __name__ == "__main__":
    main()
