"""The open-loop generator: sends each request at its scheduled moment and waits for no reply.

It encodes all requests first, says `ready`, starts when its standard input says so, and prints what it did.
Request i is scheduled at begin + i / rate: the number in an id is its time stamp.
"""

from __future__ import annotations

import gc
import sys
import time

import msgspec
import numpy as np
from confluent_kafka import Producer

from bench.load import READY, LoadTask, Sent, say, task_of_arguments
from bench.requests import make_requests

HEAD_START_S = 0.05
FLUSH_TIMEOUT_S = 30.0


def main() -> None:
    task = task_of_arguments()
    requests = make_requests(task.count, task.prefix)
    records = [(requests.encode(n), requests.key(n), requests.partition(n)) for n in range(task.count)]
    producer = Producer(
        {
            "bootstrap.servers": task.bootstrap_servers,
            "acks": "all",
            # An idempotent producer holds its first records back until it has an id: up to half a second.
            "enable.idempotence": False,
            # A linger would add itself to every latency.
            "linger.ms": 0,
            "queue.buffering.max.messages": task.count + 1,
        }
    )
    producer.list_topics(task.requests, timeout=FLUSH_TIMEOUT_S)
    gc.disable()
    say(READY)
    sys.stdin.readline()
    say(msgspec.json.encode(send(task, records, producer)).decode())


def send(task: LoadTask, records: list[tuple[bytes, bytes, int]], producer: Producer) -> Sent:
    """Hand the records to the producer, each at its moment."""
    late_s = np.empty(len(records))
    begin_s = time.monotonic() + HEAD_START_S
    for number, (value, key, partition) in enumerate(records):
        due_s = begin_s + number / task.rate
        if (wait_s := due_s - time.monotonic()) > 0:
            time.sleep(wait_s)
        producer.produce(task.requests, value, key, partition)
        late_s[number] = time.monotonic() - due_s
    if left := producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{left} of {task.count} requests were not acknowledged")
    return Sent(begin_s, float(np.quantile(late_s, 0.99)) * 1e3, float(late_s.max()) * 1e3)


if __name__ == "__main__":
    main()
