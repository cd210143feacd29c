"""Counters since the start of the process, and the increments of a range of records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from inferd.streams.telemetry.snapshot import ModelErrors, ShadowSnapshot, TenantSnapshot

ModelError = tuple[str, int, str]
"""Model id and version of a deployed model, and an error code."""


@dataclass(slots=True)
class Tally:
    """Increments of a range of records, added to the counters once it is acknowledged."""

    results: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    bytes_out: int = 0
    model_errors: Counter[ModelError] = field(default_factory=Counter)
    tombstones: int = 0
    """Records of routes without a value."""

    def fail(self, code: str, version: tuple[str, int] | None) -> None:
        """Counts a result as an error instead; `version` is the deployed version that it requested, if any."""
        self.results -= 1
        self.errors[code] += 1
        if version is not None:
            self.model_errors[*version, code] += 1


@dataclass(slots=True)
class TenantCounters:
    """Counters of one tenant's requests."""

    tenant: str
    requests_in: int = 0
    results: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    bytes_out: int = 0
    direct: int = 0
    model_errors: Counter[ModelError] = field(default_factory=Counter)
    tombstones: int = 0

    def add(self, tally: Tally) -> None:
        """Adds the increments of a range of records."""
        self.results += tally.results
        self.errors.update(tally.errors)
        self.model_errors.update(tally.model_errors)
        self.dead_letters += tally.dead_letters
        self.bytes_out += tally.bytes_out
        self.tombstones += tally.tombstones

    def snapshot(self, pending: int) -> TenantSnapshot:
        """The current counts; `pending`: records waiting or in flight in this worker."""
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
    """Counters of one model version."""

    requests: int = 0
    rows: int = 0
    scored_rows: int = 0
    """Rows scored by the model: without cache hits, and equal rows of a micro-batch counted once."""
    predict_s: float = 0.0


@dataclass(slots=True)
class ShadowCounters:
    """Counters of one shadow version."""

    requests: int = 0
    rows: int = 0
    compared: int = 0
    differing: int = 0
    predict_s: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    """Requests without a shadow result, by reason."""
    last_error: str | None = None
    aside_until: float | None = None
    """Unix seconds; until then it is not used, because it took too long."""

    def snapshot(self, tenant: str, model_id: str, version: int) -> ShadowSnapshot:
        """The current counts."""
        return ShadowSnapshot(
            tenant, model_id, version, self.requests, self.rows, self.compared, self.differing, self.predict_s,
            {reason: count for reason, count in sorted(self.dropped.items()) if count}, self.last_error,
            self.aside_until,
        )  # fmt: skip


@dataclass(slots=True)
class JobCounters:
    """Counters of one tenant's jobs that this worker owns."""

    rows_in: int = 0
    rows_succeeded: int = 0
    rows_failed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """By status."""

    def add(self, other: JobCounters) -> None:
        """Adds the increments of a range of records."""
        self.rows_in += other.rows_in
        self.rows_succeeded += other.rows_succeeded
        self.rows_failed += other.rows_failed
        self.ended.update(other.ended)


@dataclass(slots=True)
class ChunkCounters:
    """Counters of chunks that this worker scored for one tenant."""

    chunks: int = 0
    rows: int = 0
    seconds: float = 0.0
