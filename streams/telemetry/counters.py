"""What is counted since the start, and what a range of records adds to that: plain numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from inferd.streams.telemetry.snapshot import ModelErrors, TenantSnapshot

ModelError = tuple[str, int, str]
"""Model id and version, as deployed, and the code of an error."""


@dataclass(slots=True)
class Tally:
    """What a range of records adds to the counters once it is acknowledged."""

    results: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    bytes_out: int = 0
    model_errors: Counter[ModelError] = field(default_factory=Counter)

    def fail(self, code: str, version: tuple[str, int] | None) -> None:
        """A record that counted as a result is an error; `version` is the deployed one that it asked for, if any."""
        self.results -= 1
        self.errors[code] += 1
        if version is not None:
            self.model_errors[*version, code] += 1


@dataclass(slots=True)
class TenantCounters:
    """What happened to the requests of one tenant since the start."""

    tenant: str
    requests_in: int = 0
    results: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    bytes_out: int = 0
    direct: int = 0
    model_errors: Counter[ModelError] = field(default_factory=Counter)

    def add(self, tally: Tally) -> None:
        """Adds what a range of records came to."""
        self.results += tally.results
        self.errors.update(tally.errors)
        self.model_errors.update(tally.model_errors)
        self.dead_letters += tally.dead_letters
        self.bytes_out += tally.bytes_out

    def snapshot(self, pending: int) -> TenantSnapshot:
        """`pending`: records that its partitions hold."""
        return TenantSnapshot(
            tenant=self.tenant,
            requests_in=self.requests_in,
            results=self.results,
            errors=dict(self.errors),
            dead_letters=self.dead_letters,
            pending=pending,
            bytes_out=self.bytes_out,
            direct=self.direct,
            model_errors=tuple(ModelErrors(*key, count) for key, count in sorted(self.model_errors.items())),
        )


@dataclass(slots=True)
class ModelCounters:
    """What one model version was asked since the start."""

    requests: int = 0
    rows: int = 0
    scored_rows: int = 0
    """Rows that the model was called for: not those that the cache had, and equal ones of a micro-batch once."""
    predict_s: float = 0.0


@dataclass(slots=True)
class JobCounters:
    """What became of the jobs of one tenant that are owned here, since the start."""

    rows_in: int = 0
    rows_succeeded: int = 0
    rows_failed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """By status."""

    def add(self, other: JobCounters) -> None:
        """Adds what a range of records came to."""
        self.rows_in += other.rows_in
        self.rows_succeeded += other.rows_succeeded
        self.rows_failed += other.rows_failed
        self.ended.update(other.ended)


@dataclass(slots=True)
class ChunkCounters:
    """Chunks of one tenant's jobs that were scored here since the start."""

    chunks: int = 0
    rows: int = 0
    seconds: float = 0.0
