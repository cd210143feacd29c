"""Checks for every input: no crash, no hang, no untyped error; bounded time, memory and message lengths."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from inferd.schemas.errors import CODES, MESSAGE_CHARS_MAX, ModelServingError
from tests.fuzz.target import Target

CPU_S_MAX = 1.0
"""For one input of at most 64 KiB; quadratic code anywhere takes longer."""
MEMORY_SAMPLE_EVERY = 4_096
MEMORY_BYTES_MAX = 4 * 1_048_576
MEMORY_PER_BYTE_MAX = 64
RESIDENT_GROWTH_BYTES_MAX = 200 * 1_048_576
SETTLED_AFTER = 20_000
ACCEPTED = "accepted"


class FindingError(Exception):
    """An input that fails a check."""


def judge(target: Target, data: bytes) -> str:
    """`accepted`, or the error code with which the target rejected `data`; raises any other exception."""
    try:
        said = target.run(data)
    except ModelServingError as error:
        check_error(error)
        return error.code
    return said if isinstance(said, str) else ACCEPTED


def check_error(error: ModelServingError) -> None:
    """Checks that the error has a code of the wire format and a short printable message."""
    if CODES.get(error.code) is not type(error) or error.code == "internal":
        raise FindingError(f"{type(error).__name__} with code {error.code}") from error
    if not 0 < len(error.message) <= MESSAGE_CHARS_MAX:
        raise FindingError(f"a message of {len(error.message)} characters") from error
    if not error.message.isprintable():
        raise FindingError(f"a message that does not print: {error.message!r}") from error


def check_memory(target: Target, data: bytes) -> None:
    """Checks that the memory allocated by Python for the input is bounded by its size."""
    tracemalloc.start()
    try:
        judge(target, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > MEMORY_BYTES_MAX + MEMORY_PER_BYTE_MAX * len(data):
        raise FindingError(f"{peak} bytes of memory for {len(data)} of input")


def check_time(target: Target, data: bytes) -> None:
    """Checks the time for the input; the fastest of three attempts counts, because the machine is shared."""
    fastest = min(_cpu_s(target, data) for _ in range(3))
    if fastest > CPU_S_MAX:
        raise FindingError(f"{fastest:.2f} s for {len(data)} bytes")


def _cpu_s(target: Target, data: bytes) -> float:
    began = time.process_time()
    judge(target, data)
    return time.process_time() - began


def resident_bytes() -> int:
    """Memory of this process that is resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


@dataclass
class Meter:
    """Judges inputs one after the other, and counts."""

    target: Target
    inputs: int = 0
    said: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    settled_bytes: int = 0
    grown_bytes: int = 0

    def __call__(self, data: bytes) -> str:
        """The outcome of the target; raises if the input fails a check."""
        began = time.perf_counter()
        said = judge(self.target, data)
        self.said[said] += 1
        took_s = time.perf_counter() - began
        self.inputs += 1
        if took_s > self.slowest_s:
            if took_s > CPU_S_MAX:
                check_time(self.target, data)
            self.slowest_s = took_s
        if self.inputs % MEMORY_SAMPLE_EVERY == 0:
            self._sample(data)
        return said

    def _sample(self, data: bytes) -> None:
        check_memory(self.target, data)
        if self.inputs < SETTLED_AFTER:
            return
        now = resident_bytes()
        self.settled_bytes = self.settled_bytes or now
        self.grown_bytes = max(self.grown_bytes, now - self.settled_bytes)
        if self.grown_bytes > RESIDENT_GROWTH_BYTES_MAX:
            raise FindingError(f"resident memory grew by {self.grown_bytes} bytes since input {SETTLED_AFTER}")
