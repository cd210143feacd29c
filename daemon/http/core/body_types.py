"""Request and response bodies that exist only over HTTP; `/openapi.json` is generated from these types."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from inferd.schemas.jobs import JobStatus
from inferd.schemas.requests import Id, Outputs, Reference, Rows
from inferd.streams.telemetry import WaitSnapshot


class JobBody(Struct, forbid_unknown_fields=True):
    """A batch job with all its rows."""

    model_id: Reference
    input_batch: Rows
    job_id: Id | UnsetType = UNSET
    outputs: Outputs | UnsetType = UNSET
    row_count: int | UnsetType = UNSET
    chunk_rows: int | UnsetType = UNSET
    deadline: int | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class JobsAnswer(Struct):
    """A page of jobs, ordered by id; pass the last id as `after` for the next page."""

    jobs: list[JobStatus]


class Live(Struct):
    """The event loop is running."""

    status: Literal["live"]


class Health(Struct):
    """Readiness, the reasons if not ready, and tenants that wait for Kafka permissions or for their topics."""

    status: Literal["healthy", "unhealthy"]
    reasons: list[str] = []
    waiting: list[WaitSnapshot] = []


class Form(Struct):
    """A model file with a manifest."""

    model: bytes
    manifest: Any = UNSET
