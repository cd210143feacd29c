"""Redriven dead letters: records that are sent again to the topic that they were read from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from inferd.schemas.dead_letters import PREFIX, DeadLetter, Headers

ATTEMPTS = "inferd-redrive-attempts"
"""The header of a redriven record: how often it was redriven, this time included."""
ATTEMPTS_MAX = 3
"""By default, a record that was redriven so often is not redriven again."""
_COUNT = re.compile(rb"[0-9]{1,9}", re.ASCII)

Ranges = Mapping[str, Sequence[tuple[int, int]]]
"""First and last offset of each range of dead letters, by partition number."""


class RedriveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a redrive did, or would do; also its progress."""

    read: int = 0
    """Dead letters that were looked at."""
    redriven: int = 0
    skipped: Mapping[str, int] = {}
    """Dead letters that match and were not redriven, by reason: `already redriven`, `too many attempts`, `incomplete`
    (parts were too large to keep), `other topic`."""
    dry_run: bool = False
    """Nothing was sent."""
    done: bool = False
    """False for progress, and if `limit` was reached."""


def attempts_of(headers: Headers) -> int:
    """How often a record was redriven, by its headers; 0 if it was never."""
    for name, value in reversed(headers):
        if name == ATTEMPTS and _COUNT.fullmatch(value or b""):
            return int(value or b"0")
    return 0


def redriven_headers(letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """The headers of the record that is sent again: the original ones, and the number of attempts."""
    kept = [
        (name, value) for name, value in letter.original_headers if name != ATTEMPTS and not name.startswith(PREFIX)
    ]
    return [*kept, (ATTEMPTS, str(attempts_of(letter.original_headers) + 1).encode())]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters are redriven."""

    topics: frozenset[str]
    """Topics that records may be sent to; all other topics are skipped."""
    code: str | None = None
    attempts_max: int = ATTEMPTS_MAX

    def wants(self, letter: DeadLetter) -> bool:
        """Whether the dead letter was asked for."""
        return self.code in (None, letter.code)

    def obstacle(self, letter: DeadLetter) -> str | None:
        """Why a dead letter that was asked for is not redriven; None if it can be."""
        if letter.topic not in self.topics:
            return "other topic"
        if letter.omitted:
            return "incomplete"
        if attempts_of(letter.original_headers) >= self.attempts_max:
            return "too many attempts"
        return None


class Redriven:
    """The dead letters that were redriven, as ranges of offsets."""

    def __init__(self) -> None:
        self._offsets: dict[int, set[int]] = {}

    def add(self, ranges: Ranges) -> None:
        """Adds the ranges of one redrive; what is not a partition number is ignored."""
        for partition, of_partition in ranges.items():
            if partition.isdecimal():
                offsets = self._offsets.setdefault(int(partition), set())
                for first, last in of_partition:
                    offsets.update(range(first, min(last, first + RANGE_MAX) + 1))

    def __contains__(self, place: tuple[int, int]) -> bool:
        """Whether the dead letter at (partition, offset) was redriven."""
        partition, offset = place
        return offset in self._offsets.get(partition, ())


RANGE_MAX = 100_000
"""Dead letters of one range; more are in several ranges."""


def ranges_of(places: Sequence[tuple[int, int]]) -> dict[str, list[tuple[int, int]]]:
    """(partition, offset) of dead letters as ranges, by partition."""
    found: dict[str, list[tuple[int, int]]] = {}
    for partition, offset in sorted(places):
        ranges = found.setdefault(str(partition), [])
        if ranges and ranges[-1][1] + 1 == offset:
            ranges[-1] = (ranges[-1][0], offset)
        else:
            ranges.append((offset, offset))
    return found
