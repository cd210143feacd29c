"""Open-loop load: what the generator and the reader are told and say; both are processes of their own."""

from __future__ import annotations

import sys

import msgspec

READY = "ready"
"""The line that a load process prints once it listens, or waits for the word to start."""


class LoadTask(msgspec.Struct, frozen=True):
    """`count` requests at `rate` a second, and where their results are read; a process's one argument, as JSON."""

    bootstrap_servers: str
    requests: str
    results: str
    begin: tuple[int, ...]
    """Ends of the results' partitions before anything is sent."""
    prefix: str
    count: int
    rate: float
    silence_s: float
    """How long without a result the reader waits for the missing ones."""

    def to_argument(self) -> str:
        return msgspec.json.encode(self).decode()


class Sent(msgspec.Struct, frozen=True):
    """What the generator did, in seconds of the system-wide monotonic clock."""

    begin_s: float
    """When the first request was meant to be sent; the others follow 1 / rate apart."""
    late_p99_ms: float
    """How much later than meant requests were handed to the producer."""
    late_max_ms: float


class Received(msgspec.Struct, frozen=True):
    """The results that the reader saw, in their order, and when it saw each, on the same clock."""

    at_s: list[float]
    values: list[bytes]


def task_of_arguments() -> LoadTask:
    """The task that this process was started with."""
    return msgspec.json.decode(sys.argv[1], type=LoadTask)


def say(line: str) -> None:
    """Print a line that the other side waits for."""
    print(line, flush=True)
