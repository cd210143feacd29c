"""The ledger: compares every acknowledged input with the committed records that a reader sees."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tests.chaos.jobs import JobRows
from tests.chaos.kinds import Kind, decoded

State = Literal["sent", "acknowledged", "aborted", "uncertain"]
SAMPLES_MAX = 5
PARTITIONS = 6
"""Partitions of each topic; Faust assigns three each to two workers, and two each to three workers."""


class Place(NamedTuple):
    """One input partition; its results and dead letters are in the partitions of the same number."""

    tenant: str
    partition: int


@dataclass(slots=True)
class Input:
    """One request and its answers."""

    place: Place
    kind: Kind
    choice: int
    state: State = "sent"
    offset: int | None = None
    """Its first offset in the topic; None if unknown."""
    held: set[int] = field(default_factory=set)
    """Offsets at which a reader of the topic found it: several if the load's producer wrote it more than once."""
    seen: int = 0
    letters: int = 0
    values: dict[str, int] | None = None
    """By digest ("" for errors), the hash of the answer's bytes."""

    @property
    def copies(self) -> int:
        """How many records of it the topic has had; one where retention deleted it before it was read."""
        return max(1, len(self.held))

    def found_at(self, offset: int) -> None:
        self.offset = offset if self.offset is None else min(self.offset, offset)


@dataclass(frozen=True)
class Balance:
    """The totals of the ledger; `samples` has a few examples of each failure."""

    acknowledged: int
    answered: int
    lost: int
    in_named_gaps: int
    """Never read, because retention deleted them, and reported by a worker."""
    repeated: int
    different: int
    """Repeated answers of the same model version with different bytes."""
    out_of_order: int
    wrong: int
    uninvited: int
    """Answers to aborted or unknown inputs."""
    letters_lost: int
    letters_repeated: int
    uncertain: int
    """Neither acknowledged nor found in the topic."""
    sent_twice: int
    """Duplicates of an input record, which the load's producer wrote."""
    job_rows_lost: int = 0
    job_rows_repeated: int = 0
    job_rows_wrong: int = 0
    samples: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def violations(self, guarantee: str) -> list[str]:
        """Violations of the guarantee, in words."""
        never = ["lost", "different", "out_of_order", "wrong", "uninvited", "letters_lost"]
        never += ["job_rows_lost", "job_rows_wrong"]
        if guarantee == "exactly_once":
            never += ["repeated", "letters_repeated", "job_rows_repeated"]
        found = [(name, getattr(self, name)) for name in never]
        return [f"{count} {name}: {', '.join(self.samples.get(name, ()))}" for name, count in found if count]


class Ledger:
    """Written by the load thread and the reader thread."""

    def __init__(self) -> None:
        self.inputs: dict[bytes, Input] = {}
        self.answered = 0
        self._firsts: defaultdict[Place, list[Input]] = defaultdict(list)
        """First answers in the order of publication."""
        self._gaps: defaultdict[Place, list[range]] = defaultdict(list)
        self._counts: Counter[str] = Counter()
        self._samples: defaultdict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()

    @property
    def pending(self) -> int:
        """Inputs that have no answer yet."""
        return len(self.inputs) - self.answered

    def sent(self, key: bytes, made: Input) -> None:
        self.inputs[key] = made

    def acknowledged(self, key: bytes, offset: int | None) -> None:
        """Records an acknowledgement; `offset` is None if the broker reports a duplicate without its offset."""
        made = self.inputs[key]
        if offset is not None:
            made.found_at(offset)
        if made.state == "sent":
            made.state = "acknowledged"

    def uncertain(self, key: bytes) -> None:
        """The broker never acknowledged it: it may or may not be in the topic."""
        made = self.inputs[key]
        if made.state != "aborted":
            made.state = "uncertain"

    def aborted(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.inputs[key].state = "aborted"

    def gap(self, place: Place, offsets: range) -> None:
        """Retention deleted these before they were read, and a worker reported it."""
        self._gaps[place].append(offsets)

    def unanswered(self, gaps: Mapping[Place, range]) -> int:
        """The acknowledged inputs at these offsets that have no answer yet; may be called under load."""
        return sum(_is_unanswered(made) and made.offset in gaps.get(made.place, ()) for made in [*self.inputs.values()])

    # ------------------------------------------------------------------ what the topics have

    def request(self, key: bytes | None, offset: int) -> None:
        """A committed record of the requests topic.

        librdkafka's idempotent producer may write a record twice if a broker stopped for long: it starts a new epoch,
        and the broker no longer knows the sequence numbers of the old one. Each record then requires an answer.
        """
        made = self.inputs.get(key or b"")
        if made is None:
            self._note("uninvited", f"request {key!r}")
            return
        made.held.add(offset)
        made.found_at(offset)

    def result(self, place: Place, key: bytes | None, value: bytes) -> None:
        made = self.inputs.get(key or b"")
        if made is None:
            self._note("uninvited", f"key {key!r}")
            return
        made.seen += 1
        if made.seen == 1:
            self.answered += 1
            self._firsts[place].append(made)
        self._check(place, key, made, value)

    def _check(self, place: Place, key: bytes | None, made: Input, value: bytes) -> None:
        answer: dict[str, Any] = decoded(value)
        if made.place != place:
            self._note("wrong", f"{key!r} of {made.place} answered in {place}")
        if (fault := made.kind.fault(made.choice, answer)) is not None:
            self._note("wrong", f"{key!r}: {fault}")
        values = made.values = made.values or {}
        if values.setdefault(made.kind.variant(answer), hash(value)) != hash(value):
            self._note("different", f"{key!r}")

    def letter(self, place: Place, key: bytes | None, value: bytes | None) -> None:
        made = self.inputs.get(key or b"")
        expected = None if made is None else made.kind.letter(made.choice)
        if made is None or expected is None:
            self._note("uninvited", f"dead letter {key!r}")
            return
        made.letters += 1
        if expected.value != value or made.place != place:
            self._note("wrong", f"dead letter {key!r}")

    def _note(self, what: str, sample: str) -> None:
        with self._lock:
            self._counts[what] += 1
            if len(self._samples[what]) < SAMPLES_MAX:
                self._samples[what].append(sample)

    # ------------------------------------------------------------------ the balance

    def missing(self) -> list[bytes]:
        """Keys of acknowledged inputs that lack their answer or dead letter, and that no reported gap explains."""
        return [key for key, made in self.inputs.items() if self._is_lost(made) or self._lacks_letter(made)]

    def _is_lost(self, made: Input) -> bool:
        return _is_unanswered(made) and not self._in_gap(made)

    def _lacks_letter(self, made: Input) -> bool:
        return made.seen > 0 and not made.letters and made.kind.letter(made.choice) is not None

    def _in_gap(self, made: Input) -> bool:
        return any(made.offset in offsets for offsets in self._gaps[made.place])

    def balance(self, jobs: JobRows | None = None) -> Balance:
        """Computes the totals, of requests and of jobs; call it when no more records arrive."""
        of_jobs = {} if jobs is None else {what: getattr(jobs, what) for what in ("lost", "repeated", "wrong")}
        for what, rows in of_jobs.items():
            self._samples[f"job_rows_{what}"] = rows[:SAMPLES_MAX]
        inputs = list(self.inputs.items())
        for key, made in inputs:
            for what, is_so in (
                ("lost", self._is_lost(made)),
                ("letters_lost", self._lacks_letter(made)),
                ("uninvited", made.state == "aborted" and made.seen > 0),
            ):
                if is_so:
                    self._note(what, f"{key!r} {made.place.tenant}/{made.place.partition}@{made.offset}")
            if made.seen > made.copies:
                self._samples["repeated"] = [*self._samples["repeated"], f"{key!r}"][:SAMPLES_MAX]
        return Balance(
            acknowledged=sum(made.state == "acknowledged" for _, made in inputs),
            answered=self.answered,
            in_named_gaps=sum(_is_unanswered(made) and self._in_gap(made) for _, made in inputs),
            repeated=sum(max(0, made.seen - made.copies) for _, made in inputs),
            out_of_order=sum(map(_descents, self._firsts.values())),
            letters_repeated=sum(max(0, made.letters - made.copies) for _, made in inputs),
            uncertain=sum(made.state == "uncertain" and not made.held for _, made in inputs),
            sent_twice=sum(made.copies - 1 for _, made in inputs),
            **{name: self._counts[name] for name in ("lost", "different", "wrong", "uninvited", "letters_lost")},
            **{f"job_rows_{what}": len(rows) for what, rows in of_jobs.items()},
            samples=dict(self._samples),
        )


def _is_unanswered(made: Input) -> bool:
    return (made.state == "acknowledged" or bool(made.held)) and not made.seen


def _descents(answered: Sequence[Input]) -> int:
    """Number of answers that came after an answer to a later input."""
    latest, descents = -1, 0
    for made in answered:
        if made.offset is None:
            continue
        descents += made.offset < latest
        latest = max(latest, made.offset)
    return descents
