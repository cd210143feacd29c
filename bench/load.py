"""Open-loop load: the messages between this process and those of the generator and the reader."""

from __future__ import annotations

import sys

import msgspec

READY = "ready"
"""The line that a load process prints once it is ready."""


class LoadTask(msgspec.Struct, frozen=True):
    """`count` requests at `rate` per second, and where to read the results; the argument of the process, as JSON."""

    bootstrap_servers: str
    requests: str
    results: str
    begin: tuple[int, ...]
    """End offsets of the results topic before the first request."""
    prefix: str
    count: int
    rate: float
    layout: str
    """A name of `bench.layouts.LAYOUTS`."""
    silence_s: float
    """The reader stops after this time without a result."""

    def to_argument(self) -> str:
        return msgspec.json.encode(self).decode()


class Sent(msgspec.Struct, frozen=True):
    """Times of the generator, in seconds of the system-wide monotonic clock."""

    begin_s: float
    """Scheduled time of the first request; the others follow at intervals of 1 / rate."""
    late_p99_ms: float
    """Delay of requests relative to their schedule."""
    late_max_ms: float


class Received(msgspec.Struct, frozen=True):
    """The results in order of receipt, and their times on the same clock."""

    at_s: list[float]
    values: list[bytes]


def task_of_arguments() -> LoadTask:
    """The task that this process was started with."""
    return msgspec.json.decode(sys.argv[1], type=LoadTask)


def say(line: str) -> None:
    """Prints a line for the parent process."""
    print(line, flush=True)
