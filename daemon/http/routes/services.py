"""Interfaces between the HTTP routes and their backends: protocols and values.

Routes do not depend on Kafka, streams or model managers: a worker, a script and a test each provide a backend.
Every method may raise a `ModelServingError`, which becomes `{"error": {"code", "message"}}` with the error's
`http_status`; any other exception is logged and becomes `internal`. The route has already checked that the tenant is
served and that the caller may use it. Another tenant's model or job does not exist for the caller (`…_not_found`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from inferd.schemas.audit import Action, AuditRecord
from inferd.schemas.capture import CapturedRequest
from inferd.schemas.codecs import Codec
from inferd.schemas.labels import Label
from inferd.schemas.models import CHAMPION, Alias, AliasTarget, Manifest, Paused
from inferd.schemas.monitoring import Baseline, Drift, QualityReport, WindowStats
from inferd.schemas.redrive import RedriveReport
from inferd.schemas.requests import ModelReference
from inferd.schemas.rollouts import REQUESTS_MIN, RolloutStatus
from inferd.schemas.routes import Route
from inferd.streams.http_requests import HttpAnswer
from inferd.streams.telemetry import ModelState, RouteState


class Predictions(Protocol):
    """Scores one request; `inferd.streams.app.Streams` does."""

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> HttpAnswer:
        """The result of the request `value`, both encoded as on Kafka, in the format of the content-type.

        `headers` are record headers (`content-type`, `deadline`, `correlation-id`, …). Raises an `InferenceError` if
        the request cannot be scored, and another `ModelServingError` if the service cannot score now: starting,
        draining, too many waiting requests (`quota_exceeded`). A cancelled call may still be scored.
        """


class VersionOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model, and its state on this worker."""

    version: int
    digest: str
    """SHA-256 of the model file, as in results."""
    size: int
    """Size of the model file in bytes."""
    created_at: str | None = None
    aliases: list[str] = []
    """Aliases that point at it, with any share."""
    state: ModelState | None = None
    """Its state on this worker; None if the worker has not read it yet."""
    reason: str | None = None
    """Why it failed, or what it waits for."""
    batching: bool | None = None
    """False: this worker scores its rows one by one, because a batch would change bits. None if it is not loaded."""


class ModelOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its versions, oldest first, and its aliases."""

    model_id: str
    versions: list[VersionOverview]
    aliases: dict[str, Alias] = {}
    dangling_aliases: list[str] = []
    """Aliases of a version that is not deployed: requests to them fail with `version_not_found`."""


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version: its manifest and its state."""

    manifest: Manifest
    overview: VersionOverview


class Deploy(msgspec.Struct, frozen=True, kw_only=True):
    """A request to deploy a model file."""

    name: str
    model: Path
    """The model file; the route removes it once `Models.deploy` has returned."""
    version: int | None = None
    """None: the version that has the same bytes, else the next one."""
    manifest: Mapping[str, Any] | None = None
    """Fields of a manifest, decoded from JSON; missing fields are read from the model file."""
    alias: str | None = None
    """Alias to point at the version."""


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a deploy."""

    manifest: Manifest
    created: bool
    """False if the same version existed already."""


class Models(Protocol):
    """Deploys, aliases and removal of a tenant's models. Every method is idempotent.

    Raises `ModelNotFoundError` and `VersionNotFoundError`, and `UnavailableError` (503) if the broker does not respond.
    """

    async def list_models(self, tenant: str) -> Sequence[ModelOverview]:
        """All models, ordered by name."""

    async def show_model(self, tenant: str, name: str) -> ModelOverview:
        """One model."""

    async def show_version(self, tenant: str, reference: ModelReference) -> ModelVersion:
        """The version that a reference resolves to, as it would for a request."""

    async def baseline(self, tenant: str, reference: ModelReference) -> Baseline | None:
        """What features and predictions of a version are compared with; None if it has none yet."""

    async def deploy(self, tenant: str, deploy: Deploy) -> Deployed:
        """Returns once the broker has acknowledged the model; workers test the version before they serve it.

        Raises `InferenceError` if the file or the manifest is invalid, and `VersionExistsError` (409) if the version
        exists with other content.
        """

    async def aliases(self, tenant: str, name: str) -> Mapping[str, Alias]:
        """The aliases of a model, with their history."""

    async def set_alias(
        self, tenant: str, name: str, alias: str, target: AliasTarget, *, revision: int | None, changed_by: str
    ) -> Alias:
        """Points `name@alias` at `target`; all its versions must exist. Returns the alias as it is then.

        `AliasChangedError` (409) if it does not have the given revision, or somebody else changes it.
        """

    async def rollback_alias(
        self, tenant: str, name: str, alias: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        """Points `name@alias` at what it pointed at before its last change; `NoEarlierTargetError` (409)."""

    async def promote_alias(
        self, tenant: str, name: str, alias: str, to: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        """Points `name@to` at what `name@alias` points at."""

    async def remove(
        self, tenant: str, reference: ModelReference, *, everything: bool = False, move_aliases_to: int | None = None
    ) -> Sequence[str]:
        """Removes a version, an alias or, with `everything`, a whole model; returns the removed keys.

        Aliases that point at the version are moved to `move_aliases_to`; raises `VersionInUseError` (409) if there are
        some and it is None.
        """


class RouteOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A route, and its state on this worker."""

    route: Route
    state: RouteState | None = None
    """None if the worker has not read it yet."""
    reason: str | None = None
    """Why its records wait, or why it is refused."""


class Routes(Protocol):
    """The routes of a tenant. Every method is idempotent.

    Raises `RouteNotFoundError`, and `UnavailableError` (503) if the broker does not respond.
    """

    async def list_routes(self, tenant: str) -> Sequence[RouteOverview]:
        """All routes, ordered by name."""

    async def show_route(self, tenant: str, name: str) -> RouteOverview:
        """One route."""

    async def put_route(
        self, tenant: str, route: Route, start: Literal["latest", "earliest"] | datetime
    ) -> tuple[bool, RouteOverview]:
        """Creates a route, or changes the one of its name; returns whether it is new, and the route.

        Raises `InvalidValueError` for a topic that the settings do not allow, and the errors of `Client.create_route`.
        """

    async def remove_route(self, tenant: str, name: str) -> None:
        """Removes a route."""


Steering = Literal["pause", "resume", "promote", "abort"]


class RolloutBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rollout to start: the fields of the message `start`."""

    to: int
    steps: list[str]
    alias: str = CHAMPION
    guards: list[str] = []
    requests_min: int = REQUESTS_MIN
    guard_requests_min: int = REQUESTS_MIN
    revision: int | None = None


class Rollouts(Protocol):
    """The rollouts of a tenant, one for each model.

    Raises `RolloutNotFoundError` and `RolloutConflictError`, and `UnavailableError` (503) if the broker or the worker
    that owns the rollouts does not respond.
    """

    async def list_rollouts(self, tenant: str) -> Mapping[str, RolloutStatus]:
        """The newest rollout of each model, by model."""

    async def show_rollout(self, tenant: str, model_id: str) -> RolloutStatus:
        """The newest rollout of a model."""

    async def start_rollout(self, tenant: str, model_id: str, body: RolloutBody, changed_by: str) -> RolloutStatus:
        """Starts a rollout; returns its status. Raises the errors of `Client.rollouts.start`."""

    async def steer_rollout(self, tenant: str, model_id: str, action: Steering, changed_by: str) -> RolloutStatus:
        """Pauses, resumes, promotes or aborts a rollout; returns its status."""


class PauseOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A model or a route whose records wait."""

    kind: Paused
    name: str
    at: int
    """Since when, Unix milliseconds."""
    by: str
    reason: str | None = None


class RedriveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are redriven."""

    code: str | None = None
    since_s: int | None = None
    """Written in the last so many seconds; None: all."""
    limit: int
    route: str | None = None
    dry_run: bool = False


class Operating(Protocol):
    """What operators do with a tenant. Raises `UnavailableError` (503) if the broker does not respond."""

    async def note(self, tenant: str, action: Action, subject: str) -> None:
        """Writes to the audit that the caller's action was accepted."""

    async def audit(self, tenant: str, since_s: int, limit: int) -> list[AuditRecord]:
        """The newest `limit` records of the last `since_s` seconds, newest first."""

    async def pauses(self, tenant: str) -> list[PauseOverview]:
        """What is paused."""

    async def pause(self, tenant: str, kind: Paused, name: str, reason: str | None) -> PauseOverview:
        """Pauses a model or a route; `ModelNotFoundError`, `RouteNotFoundError`."""

    async def resume(self, tenant: str, kind: Paused, name: str) -> bool:
        """Resumes a model or a route; False if it was not paused."""

    async def redrive(self, tenant: str, options: RedriveOptions) -> RedriveReport:
        """Redrives dead letters; see `Client.redrive_dead_letters`."""


class Monitoring(Protocol):
    """What the versions of a tenant's models scored. Raises `UnavailableError` (503) if the broker does not respond."""

    async def windows(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[WindowStats]:
        """The windows of the last `since_s` seconds, of one version or of all, in order of time."""

    async def drift(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[Drift]:
        """The drift of the versions that have a baseline; `VersionNotFoundError`."""

    async def quality(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[QualityReport]:
        """The quality of each version, alias and variant that has labels."""

    async def send_labels(self, tenant: str, labels: Sequence[Label]) -> int:
        """Sends labels; returns how many once the broker has acknowledged all of them."""

    def captured(
        self, tenant: str, model_id: str, version: int | None, since_s: int
    ) -> AsyncGenerator[CapturedRequest, None]:
        """The captured requests of the last `since_s` seconds."""


class Jobs(Protocol):
    """A tenant's batch jobs, whichever worker owns them. Statuses are encoded JSON objects (`docs/jobs.md`).

    Raises a `BatchJobError` (`job_not_found`, `job_conflict`, `job_closed`, `job_expired`), and a `ModelServingError`
    with status 503 if the owner of a job cannot be reached.
    """

    async def submit(self, tenant: str, job_id: str | None, message: bytes, codec: Codec) -> bytes:
        """Opens a job; returns its status (JSON). An existing job with the same content is left as it is.

        `message` is a `submit` message as on Kafka (`{"type": "submit", "model_id", "input_batch", …}`), encoded with
        `codec` and checked only to be an object. With `job_id` None an id is generated. Raises `InferenceError` if the
        message is invalid, `JobConflictError`, `QuotaExceededError`.
        """

    async def upload(self, tenant: str, job_id: str | None, opening: bytes, rows: AsyncIterator[bytes]) -> bytes:
        """Opens a job whose rows arrive as a stream; returns its status (JSON) once all rows are stored.

        `opening` is an `open` message (MessagePack). `rows` are `rows` messages (JSON) from `seq` 0 that depend on the
        rows alone, so a repeated upload changes nothing. If the job cannot be opened, `rows` is not read. Errors of
        `rows` are raised; after `InvalidValueError` and `TooLargeError` the job is cancelled.
        """

    async def list_jobs(self, tenant: str, *, status: str | None, limit: int, after: str | None) -> Sequence[bytes]:
        """Statuses (JSON) by job id: at most `limit` after the id `after`; only those with `status`, if given."""

    async def status(self, tenant: str, job_id: str) -> bytes:
        """The job's latest status (JSON)."""

    async def outputs(self, tenant: str, job_id: str) -> Sequence[str]:
        """The outputs in each row of the job's results, `prediction` first."""

    def results(self, tenant: str, job_id: str, *, from_row: int = 0) -> AsyncIterator[bytes]:
        """NDJSON lines in row order from row `from_row`; an item may hold several lines, each with its line feed.

        A line is `{"row", "prediction", …}` or `{"row", "error": {"code", "message"}}`. Raises before the first item
        if the job does not exist, has expired, or has not ended (`JobConflictError` with its status).
        """

    async def cancel(self, tenant: str, job_id: str) -> bytes:
        """Cancels a job; returns its status (JSON). Raises `JobClosedError` if it has ended."""

    async def retry(self, tenant: str, job_id: str) -> bytes:
        """Retries failed rows; returns the status (JSON). Raises `JobClosedError` unless it completed with errors."""
