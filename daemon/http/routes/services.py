"""What the HTTP routes ask of whoever does the work: protocols, and the values that pass between them.

Routes know nothing of Kafka, streams or model managers: the worker, a plain script and a test each bring their own.
Every method may raise a `ModelServingError`, which becomes `{"error": {"code", "message"}}` with the error's
`http_status`; anything else is logged and becomes `internal`. A tenant is always one that is served here, and that the
caller may act for: both have been checked. What belongs to another tenant is not there, and is told as not found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from inferd.schemas.headers import Encoding
from inferd.schemas.models import Alias, Manifest
from inferd.schemas.requests import ModelReference
from inferd.streams.telemetry import ModelState


class Predictions(Protocol):
    """Scores one request; `inferd.streams.app.Streams` does."""

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> bytes:
        """The result of the request `value`, both as on the wire: MessagePack, or JSON where the content-type says so.

        `headers` are record headers (`content-type`, `deadline`, `correlation-id`, …). Raises the `InferenceError`
        of a request that cannot be scored, and another `ModelServingError` where nothing can be scored now: not
        started, draining, too many waiting (`quota_exceeded`). The call may be cancelled; the request may be scored
        all the same.
        """


class VersionOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model, and what this worker makes of it."""

    version: int
    digest: str
    """SHA-256 of the model file, as results name it."""
    size: int
    """Bytes of the model file."""
    created_at: str | None = None
    aliases: list[str] = []
    """Aliases that lead to it, wholly or in part."""
    state: ModelState | None = None
    """What this worker does with it; None while it has not heard of it."""
    reason: str | None = None
    """Why it failed, or what it waits for."""


class ModelOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its versions, oldest first, and where its aliases lead."""

    model_id: str
    versions: list[VersionOverview]
    aliases: dict[str, Alias] = {}
    dangling_aliases: list[str] = []
    """Aliases that lead to a version that is not deployed: requests to it end as `version_not_found`."""


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one version."""

    manifest: Manifest
    overview: VersionOverview


class Deploy(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be deployed: a model file, and what is to be said beyond it."""

    name: str
    model: Path
    """A file that the route removes once `Models.deploy` has returned."""
    version: int | None = None
    """None: the version that these bytes have already, else the next one."""
    manifest: Mapping[str, Any] | None = None
    """Fields of a manifest as from JSON; what they leave out is filled in from the model file."""
    alias: str | None = None
    """An alias to point at the version."""


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy came to."""

    manifest: Manifest
    created: bool
    """False where the version was there already, the same."""


class Models(Protocol):
    """Lifecycle of a tenant's models. Each method may be repeated: the second time changes nothing more.

    Raises `ModelNotFoundError`, `VersionNotFoundError` for what is not there, and `UnavailableError` (503) where the
    broker does not answer.
    """

    async def list_models(self, tenant: str) -> Sequence[ModelOverview]:
        """Every model, by name."""

    async def show_model(self, tenant: str, name: str) -> ModelOverview:
        """One model."""

    async def show_version(self, tenant: str, reference: ModelReference) -> ModelVersion:
        """The version that a reference leads to; a bare name leads where a request would."""

    async def deploy(self, tenant: str, deploy: Deploy) -> Deployed:
        """Returns once the broker has everything; workers try the version before they serve it.

        Raises `InferenceError` where the file or the manifest does not serve, `VersionExistsError` (409) where the
        version is there and differs.
        """

    async def set_alias(self, tenant: str, name: str, alias: str, target: Alias) -> None:
        """Points `name@alias` at `target`, all of whose versions are there."""

    async def remove(
        self, tenant: str, reference: ModelReference, *, everything: bool = False, move_aliases_to: int | None = None
    ) -> Sequence[str]:
        """Removes a version, an alias or, where `everything` is asked for, a whole model: the keys that are gone.

        Aliases that lead to the version are moved to the version `move_aliases_to`; `VersionInUseError` (409) where
        that is None.
        """


class Jobs(Protocol):
    """Batch jobs of a tenant, whichever worker owns them. Statuses are JSON objects (WIRE: "Job messages"), encoded.

    Raises `BatchJobError`s: `job_not_found`, `job_conflict`, `job_closed`, `job_expired`; and `ModelServingError` with
    503 where the owner of a job cannot be asked now.
    """

    async def submit(self, tenant: str, job_id: str | None, message: bytes, encoding: Encoding) -> bytes:
        """The status (JSON) of the job that was opened, or that was there with the same content.

        `message` is a `submit` message as on the wire (`{"type": "submit", "model_id", "input_batch", …}`) in
        `encoding`; nothing of it has been checked but that it is one object. `job_id` None: one is chosen.
        Raises `InferenceError` where the message is not fit, `JobConflictError`, `QuotaExceededError`.
        """

    async def upload(self, tenant: str, job_id: str | None, opening: bytes, rows: AsyncIterator[bytes]) -> bytes:
        """The status (JSON) of a job whose rows come piece by piece, once all are taken.

        `opening` is an `open` message (MessagePack), `rows` are `rows` messages (JSON) from `seq` 0 on, which follow
        from the rows alone: the same upload again changes nothing. A job that fails as it is opened takes none of them.
        What `rows` raises is raised; for `InvalidValueError` and `TooLargeError` the job is cancelled before.
        """

    async def list_jobs(self, tenant: str, *, status: str | None, limit: int, after: str | None) -> Sequence[bytes]:
        """Statuses (JSON) by job id: at most `limit` of those behind `after`, of that `status` where one is asked."""

    async def status(self, tenant: str, job_id: str) -> bytes:
        """The job's latest status (JSON)."""

    async def outputs(self, tenant: str, job_id: str) -> Sequence[str]:
        """What each row of the job's results has beside its number, `prediction` first."""

    def results(self, tenant: str, job_id: str, *, from_row: int = 0) -> AsyncIterator[bytes]:
        """Lines of NDJSON (each with its line feed; an item may hold several), in row order from row `from_row`.

        `{"row", "prediction", …}` or `{"row", "error": {"code", "message"}}`. Raises before the first item where the
        job is not there, expired, or not ended yet (`JobConflictError` naming its status).
        """

    async def cancel(self, tenant: str, job_id: str) -> bytes:
        """The status (JSON) after the cancel was taken; a job that has ended stays as it is (`job_closed`)."""

    async def retry(self, tenant: str, job_id: str) -> bytes:
        """The status (JSON) after the retry was taken; only for jobs that completed with errors (`job_closed`)."""
