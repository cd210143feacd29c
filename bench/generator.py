"""The open-loop generator: sends each request at its scheduled time, without waiting for results.

It encodes all requests, prints `ready`, starts on a line on its standard input, and prints a summary. Request i is
scheduled at begin + i / rate, so the number in an id determines its scheduled time.
"""

from __future__ import annotations

import gc
import sys
import time

import msgspec
import numpy as np
from confluent_kafka import Producer

from bench.layouts import Headers
from bench.load import READY, LoadTask, Sent, say, task_of_arguments
from bench.requests import make_requests

HEAD_START_S = 0.05
FLUSH_TIMEOUT_S = 30.0


def main() -> None:
    task = task_of_arguments()
    requests = make_requests(task.count, task.prefix, task.layout)
    records = [(requests.encode(n), requests.key(n), requests.partition(n)) for n in range(task.count)]
    producer = Producer(
        {
            "bootstrap.servers": task.bootstrap_servers,
            "acks": "all",
            # An idempotent producer delays its first records by up to half a second, until it has an id.
            "enable.idempotence": False,
            # A linger would add to every latency.
            "linger.ms": 0,
            "queue.buffering.max.messages": task.count + 1,
        }
    )
    producer.list_topics(task.requests, timeout=FLUSH_TIMEOUT_S)
    gc.disable()
    say(READY)
    sys.stdin.readline()
    say(msgspec.json.encode(send(task, records, producer, requests.layout.headers)).decode())


def send(task: LoadTask, records: list[tuple[bytes, bytes, int]], producer: Producer, headers: Headers) -> Sent:
    """Passes the records to the producer, each at its scheduled time."""
    late_s = np.empty(len(records))
    begin_s = time.monotonic() + HEAD_START_S
    for number, (value, key, partition) in enumerate(records):
        due_s = begin_s + number / task.rate
        if (wait_s := due_s - time.monotonic()) > 0:
            time.sleep(wait_s)
        producer.produce(task.requests, value, key, partition, headers=list(headers))
        late_s[number] = time.monotonic() - due_s
    if left := producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{left} of {task.count} requests were not acknowledged")
    return Sent(begin_s, float(np.quantile(late_s, 0.99)) * 1e3, float(late_s.max()) * 1e3)


if __name__ == "__main__":
    main()
