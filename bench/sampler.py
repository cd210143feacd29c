"""Run a script while sampling where its CPU time goes: `python -m bench.sampler FILE SCRIPT ARGUMENT…`.

SIGUSR1 starts sampling; SIGUSR2 stops it and writes FILE. A sample is taken every few milliseconds of CPU time, between
two byte codes of the main thread: the time of a C function is attributed to the Python line that called it.
"""

from __future__ import annotations

import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import msgspec

INTERVAL_S = 0.001


class Frame(msgspec.Struct, frozen=True):
    """A frame of a stack."""

    file: str
    function: str
    line: int


class StackCount(msgspec.Struct, frozen=True):
    """A stack and its number of samples; the innermost frame is first."""

    stack: list[Frame]
    count: int


class Sampler:
    """Counts stacks of the main thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: Counter[tuple[tuple[str, str, int], ...]] = Counter()

    def install(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, _number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno or 0))
            frame = frame.f_back
        self._counts[tuple(stack)] += 1

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        stacks = [StackCount([Frame(*each) for each in stack], count) for stack, count in self._counts.items()]
        unfinished = self._path.with_suffix(".part")
        unfinished.write_bytes(msgspec.json.encode(stacks))
        unfinished.replace(self._path)


def read_samples(path: Path) -> list[StackCount]:
    """Reads the samples written by a sampler."""
    return msgspec.json.decode(path.read_bytes(), type=list[StackCount])


def main() -> None:
    path, script, *arguments = sys.argv[1:]
    Sampler(Path(path)).install()
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
