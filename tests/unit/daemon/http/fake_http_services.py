"""In-memory backends of the HTTP routes, with the same errors as the real ones."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiokafka import ConsumerRecord

from inferd.actor import current_actor
from inferd.daemon.application import application_of
from inferd.daemon.dead_letter_entries import Entry, details_of, summary_of
from inferd.daemon.http.core import UnavailableError
from inferd.daemon.http.core.access import ACCESS, Access
from inferd.daemon.http.core.admission import Admission
from inferd.daemon.http.core.application import AppLimits, create_app
from inferd.daemon.http.core.errors import NotFoundError
from inferd.daemon.http.core.peers import add_peer
from inferd.daemon.http.routes.asyncapi import add_asyncapi
from inferd.daemon.http.routes.callers import add_whoami
from inferd.daemon.http.routes.cluster import add_cluster
from inferd.daemon.http.routes.dead_letters import add_dead_letters
from inferd.daemon.http.routes.forwarding import Forwarding
from inferd.daemon.http.routes.jobs import add_jobs
from inferd.daemon.http.routes.labels import add_labels
from inferd.daemon.http.routes.models import add_models
from inferd.daemon.http.routes.monitoring import add_monitoring
from inferd.daemon.http.routes.observation import add_observation, readyz
from inferd.daemon.http.routes.open_inference import add_open_inference
from inferd.daemon.http.routes.openapi import ROLES_OF_OPERATIONS, add_openapi
from inferd.daemon.http.routes.operating import add_operating
from inferd.daemon.http.routes.page import add_page
from inferd.daemon.http.routes.predictions import add_predictions
from inferd.daemon.http.routes.rollouts import add_rollouts
from inferd.daemon.http.routes.routes import add_routes
from inferd.daemon.http.routes.services import (
    Deploy,
    Deployed,
    ModelOverview,
    ModelVersion,
    PauseOverview,
    RedriveOptions,
    RolloutBody,
    RouteOverview,
    VersionOverview,
)
from inferd.daemon.http.routes.topics import Topic, TopicRecords, add_topics
from inferd.daemon.http.routes.uploads import Uploads
from inferd.daemon.http.user_routes.routes import UserRoutes
from inferd.daemon.http.worker.cluster_topics import shown
from inferd.daemon.settings.settings import Settings
from inferd.daemon.telemetry.status import StatusBoard
from inferd.daemon.topic_reader import Record
from inferd.schemas.audit import Action, AuditRecord
from inferd.schemas.capture import CapturedRequest
from inferd.schemas.codec import decode_request, encode_result
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.errors import (
    InvalidIdError,
    JobClosedError,
    JobNotFoundError,
    MalformedError,
    ModelNotFoundError,
    VersionNotFoundError,
)
from inferd.schemas.headers import parse_headers
from inferd.schemas.jobs.codec import decode_job_message
from inferd.schemas.labels import Label
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models.alias_history import earlier_target, next_revision, target_of, without_history
from inferd.schemas.models.aliases import replace_version, version_in_use_error, versions_named
from inferd.schemas.models.errors import AliasChangedError, VersionExistsError
from inferd.schemas.models.model import (
    Alias,
    AliasKey,
    AliasTarget,
    Feature,
    Manifest,
)
from inferd.schemas.models.pause import Paused
from inferd.schemas.monitoring import (
    Baseline,
    CategoryBaseline,
    Drift,
    FeatureDrift,
    NumberBaseline,
    QualityReport,
    WindowStats,
    of_probability,
    quality_reports,
)
from inferd.schemas.redrive import RedriveReport
from inferd.schemas.requests.request import InputData, ModelReference, TensorRows
from inferd.schemas.requests.result import Prediction
from inferd.schemas.rollouts import (
    Rollout,
    RolloutConflictError,
    RolloutNotFoundError,
    RolloutStatus,
    parse_guards,
    parse_steps,
)
from inferd.schemas.routes import Route, RouteNotFoundError
from inferd.streams.http_requests import HttpAnswer
from tests.unit.daemon.fake_streams import FakeStreams

UNKNOWN = "other"


class FakePredictions:
    """Serves every model except `other`; decodes requests as strictly as a worker."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, dict[str, bytes]]] = []
        self.gate: asyncio.Event | None = None

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> HttpAnswer:
        self.asked.append((tenant, value, dict(headers)))
        if self.gate is not None:
            await self.gate.wait()
        codec: Codec = JSON if dict(headers).get("content-type") == b"application/json" else MSGPACK
        parse_headers(tuple(headers), DEFAULT_LIMITS)
        request = decode_request(value, codec, DEFAULT_LIMITS)
        by_alias = (("inferd-alias-revision", b"7"), ("inferd-variant", b"canary"))
        if request.model.name == UNKNOWN:
            error = ModelNotFoundError(f"tenant {tenant} has no model {request.model.name!r}")
            error.result_headers = by_alias if request.model.alias is not None else ()
            raise error
        outputs: dict[str, Any] = dict.fromkeys(map(str, request.outputs), _predicted(request.input_data))
        value = encode_result(Prediction(request.id or "0-0", request.model.name, 1, "ab" * 32, outputs), codec)
        return HttpAnswer(value, by_alias if request.model.alias is not None else ())


def _predicted(data: InputData) -> float | list[float]:
    if isinstance(data, TensorRows):
        return [0.25] * data.shape[0]
    return 0.25 if data.single else [0.25] * len(data.rows)


AGE = NumberBaseline([18.0, 30.0, 50.0], 0.0, 99.0, [10, 40, 40, 10])
BASELINE = Baseline(5, "given", 100, {"age": AGE, "plan": CategoryBaseline(["basic", "pro"], [70, 30])})


class FakeModels:
    """In-memory models: every file is a model with one feature, unless it starts with `none`."""

    def __init__(self) -> None:
        self.versions: defaultdict[str, dict[tuple[str, int], Manifest]] = defaultdict(dict)
        self.aliases_of: defaultdict[str, dict[tuple[str, str], Alias]] = defaultdict(dict)
        self.files: list[tuple[Path, bytes]] = []

    async def baseline(self, tenant: str, reference: ModelReference) -> Baseline | None:
        if (reference.name, reference.version) not in self.versions[tenant]:
            raise VersionNotFoundError(f"there is no {reference}")
        return BASELINE if reference.version == 3 else None

    async def list_models(self, tenant: str) -> Sequence[ModelOverview]:
        names = sorted({name for name, _ in self.versions[tenant]})
        return [await self.show_model(tenant, name) for name in names]

    async def show_model(self, tenant: str, name: str) -> ModelOverview:
        versions = [_overview(manifest) for (of, _), manifest in sorted(self.versions[tenant].items()) if of == name]
        if not versions:
            raise ModelNotFoundError(f"there is no model {name!r}")
        aliases = {alias: target for (of, alias), target in self.aliases_of[tenant].items() if of == name}
        return ModelOverview(model_id=name, versions=versions, aliases=without_history(aliases))

    async def show_version(self, tenant: str, reference: ModelReference) -> ModelVersion:
        model = await self.show_model(tenant, reference.name)
        version = reference.version or model.versions[-1].version
        if reference.alias is not None:
            target = model.aliases.get(reference.alias)
            version = target.version or 1 if target is not None else 0
        manifest = self.versions[tenant].get((reference.name, version))
        if manifest is None:
            raise VersionNotFoundError(f"there is no {reference}")
        return ModelVersion(manifest=manifest, overview=_overview(manifest))

    async def deploy(self, tenant: str, deploy: Deploy) -> Deployed:
        content = await asyncio.to_thread(deploy.model.read_bytes)
        self.files.append((deploy.model, content))
        if content.startswith(b"none"):
            raise MalformedError("model file: it does not start as one")
        mine = self.versions[tenant]
        version = deploy.version or max((v for name, v in mine if name == deploy.name), default=0) + 1
        manifest = _manifest(deploy, version, content)
        present = mine.get((deploy.name, version))
        if present is not None and present != manifest:
            raise VersionExistsError(f"{deploy.name}:{version} is there")
        mine[deploy.name, version] = manifest
        if deploy.alias is not None:
            self._change(tenant, deploy.name, deploy.alias, AliasTarget(version=version), None, "http")
        return Deployed(manifest=manifest, created=present is None)

    async def aliases(self, tenant: str, name: str) -> dict[str, Alias]:
        await self.show_model(tenant, name)
        return {alias: target for (of, alias), target in self.aliases_of[tenant].items() if of == name}

    async def set_alias(
        self, tenant: str, name: str, alias: str, target: AliasTarget, *, revision: int | None, changed_by: str
    ) -> Alias:
        await self.show_model(tenant, name)
        return self._change(tenant, name, alias, target, revision, changed_by)

    async def rollback_alias(
        self, tenant: str, name: str, alias: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        earlier = earlier_target(AliasKey(name, alias), await self._alias(tenant, name, alias))
        return self._change(tenant, name, alias, earlier, revision, changed_by, earlier.revision)

    async def promote_alias(
        self, tenant: str, name: str, alias: str, to: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        return self._change(tenant, name, to, await self._alias(tenant, name, alias), revision, changed_by)

    async def _alias(self, tenant: str, name: str, alias: str) -> Alias:
        await self.show_model(tenant, name)
        if (name, alias) not in self.aliases_of[tenant]:
            raise VersionNotFoundError(f"there is no {name}@{alias}")
        return self.aliases_of[tenant][name, alias]

    def _change(
        self,
        tenant: str,
        name: str,
        alias: str,
        target: AliasTarget,
        revision: int | None,
        changed_by: str,
        restores: int | None = None,
    ) -> Alias:
        current = self.aliases_of[tenant].get((name, alias))
        if revision not in (None, 0 if current is None else current.revision):
            raise AliasChangedError("it was changed")
        changed = next_revision(current, target_of(target), "2026-01-01T00:00:00+00:00", changed_by, restores)
        self.aliases_of[tenant][name, alias] = changed
        return changed

    async def remove(
        self, tenant: str, reference: ModelReference, *, everything: bool = False, move_aliases_to: int | None = None
    ) -> Sequence[str]:
        await self.show_model(tenant, reference.name)
        if reference.version is not None:
            self._move_aliases(tenant, reference.name, reference.version, move_aliases_to)
            if self.versions[tenant].pop((reference.name, reference.version), None) is None:
                raise VersionNotFoundError(f"there is no {reference}")
            return [f"{reference.name}/{reference.version}"]
        if reference.alias is not None:
            if self.aliases_of[tenant].pop((reference.name, reference.alias), None) is None:
                raise VersionNotFoundError(f"there is no {reference}")
            return [str(reference)]
        if not everything:
            raise InvalidIdError("that is a whole model")
        gone = [key for key in self.versions[tenant] if key[0] == reference.name]
        for key in gone:
            del self.versions[tenant][key]
        return [f"{name}/{version}" for name, version in gone]

    def _move_aliases(self, tenant: str, name: str, version: int, to: int | None) -> None:
        for (of, alias), target in list(self.aliases_of[tenant].items()):
            if of == name and version in versions_named(target):
                if to is None:
                    raise version_in_use_error(AliasKey(name, alias), version, ())
                self._change(tenant, of, alias, replace_version(target, version, to), None, "http")


class FakeJobs:
    """Jobs of one row, completed immediately."""

    def __init__(self) -> None:
        self.messages: dict[tuple[str, str], bytes] = {}
        self.uploaded: list[bytes] = []

    async def submit(self, tenant: str, job_id: str | None, message: bytes, codec: Codec) -> bytes:
        decode_job_message(message, codec, DEFAULT_LIMITS)
        name = job_id or f"job-{len(self.messages)}"
        self.messages[tenant, name] = message
        return self._status(name)

    async def upload(self, tenant: str, job_id: str | None, opening: bytes, rows: AsyncIterator[bytes]) -> bytes:
        decode_job_message(opening, MSGPACK, DEFAULT_LIMITS)
        self.uploaded = [opening]
        async for message in rows:
            decode_job_message(message, JSON, DEFAULT_LIMITS)
            self.uploaded.append(message)
        name = job_id or f"job-{len(self.messages)}"
        self.messages[tenant, name] = b"".join(self.uploaded)
        return self._status(name)

    async def list_jobs(self, tenant: str, *, status: str | None, limit: int, after: str | None) -> Sequence[bytes]:
        names = sorted(name for of, name in self.messages if of == tenant and name > (after or ""))
        return [self._status(name) for name in names[:limit] if status in (None, "completed")]

    async def status(self, tenant: str, job_id: str) -> bytes:
        self._check(tenant, job_id)
        return self._status(job_id)

    async def outputs(self, tenant: str, job_id: str) -> Sequence[str]:
        self._check(tenant, job_id)
        return ["prediction"]

    async def results(self, tenant: str, job_id: str, *, from_row: int = 0) -> AsyncIterator[bytes]:
        self._check(tenant, job_id)
        for row in range(from_row, 3):
            yield b'{"row":%d,"prediction":0.25}\n' % row

    async def cancel(self, tenant: str, job_id: str) -> bytes:
        self._check(tenant, job_id)
        raise JobClosedError(f"job {job_id} is completed")

    async def retry(self, tenant: str, job_id: str) -> bytes:
        return await self.cancel(tenant, job_id)

    def _check(self, tenant: str, job_id: str) -> None:
        if (tenant, job_id) not in self.messages:
            raise JobNotFoundError(f"there is no job {job_id!r}")

    def _status(self, job_id: str) -> bytes:
        counts = {"input_count": 3, "processed": 3, "succeeded": 3, "failed": 0, "chunks_total": 1, "chunks_done": 1}
        model = {"model_id": "churn", "version": 1, "digest": "ab" * 32}
        times = dict.fromkeys(("submitted_at", "started_at", "updated_at", "finished_at"), 1_764_000_000_000)
        return msgspec.json.encode({"job_id": job_id, "status": "completed", **model, **counts, **times})


class FakeDeadLetters:
    """One dead letter, at 2:17."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, str | None]] = []
        self.letters = [_dead_letter()]

    async def newest(self, tenant: str, last: int, code: str | None) -> list[dict[str, Any]]:
        self.asked.append((tenant, last, code))
        return [summary_of(entry) for entry in self.letters]

    async def show(self, tenant: str, partition: int, offset: int) -> dict[str, Any]:
        if (partition, offset) != (2, 17):
            raise NotFoundError(f"there is no record at {partition}:{offset}")
        return details_of(_dead_letter())


def _dead_letter() -> Entry:
    value = b'{"model_id": 7}'
    letter = DeadLetter(
        "malformed", "model_id: expected a string", "inferd.default.requests", 2, 40, 1_764_000_000_000, "w1", b"k",
        value, (("correlation-id", b"c1"),),
    )  # fmt: skip
    return Entry(2, 17, 1_764_000_000_001, b"k", len(value), value, letter.original_headers, letter, None)


class FakeTopics:
    """A topic of the tenant, of which records are held, and one of a route, which is empty."""

    def __init__(self) -> None:
        self.held: list[Record] = []
        self.asked: list[tuple[str, str, int, int | None, int]] = []

    async def topics(self, tenant: str) -> list[Topic]:
        return [Topic(f"inferd.{tenant}.results", 2, of_routes=False), Topic("orders", 1, of_routes=True)]

    async def records(self, tenant: str, topic: str, partition: int, start: int | None, limit: int) -> TopicRecords:
        self.asked.append((tenant, topic, partition, start, limit))
        if topic not in {each.topic for each in await self.topics(tenant)}:
            raise NotFoundError(f"tenant {tenant} has no topic {topic!r}")
        held = self.held if partition == 0 and topic != "orders" else []
        end = held[-1].offset + 1 if held else 0
        first = end - limit if start is None else start
        page = [record for record in held if record.offset >= first][:limit]
        return TopicRecords(
            topic, partition, 2, held[0].offset if held else 0, end, page[-1].offset + 1 if page else end,
            list(map(shown, page)),
        )  # fmt: skip


def topic_record(offset: int, value: bytes | None, key: bytes | None = b"k", headers: Any = ()) -> Record:
    """A record of a topic."""
    size = len(value or b"")
    return ConsumerRecord("t", 0, offset, 1_764_000_000_000 + offset, 0, key, value, None, 0, size, tuple(headers))


class Alone:
    """A group of one worker."""

    count = 4

    def partitions(self, _tenant: str) -> int:
        return self.count

    def peers(self) -> frozenset[str]:
        return frozenset()

    def owned_partitions(self, _tenant: str) -> frozenset[int]:
        return frozenset(range(self.count))


class FakeRoutes:
    """Routes in memory."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Route] = {}
        self.starts: list[object] = []

    def of(self, tenant: str) -> list[Route]:
        return [route for (of, _), route in sorted(self.routes.items()) if of == tenant]

    async def list_routes(self, tenant: str) -> list[RouteOverview]:
        return [RouteOverview(route=route) for route in self.of(tenant)]

    async def show_route(self, tenant: str, name: str) -> RouteOverview:
        if (tenant, name) not in self.routes:
            raise RouteNotFoundError(f"there is no route {name!r}")
        return RouteOverview(route=self.routes[tenant, name])

    async def put_route(self, tenant: str, route: Route, start: object) -> tuple[bool, RouteOverview]:
        created = (tenant, route.name) not in self.routes
        self.routes[tenant, route.name] = route
        self.starts.append(start)
        return created, RouteOverview(route=route, state="running")

    async def remove_route(self, tenant: str, name: str) -> None:
        await self.show_route(tenant, name)
        del self.routes[tenant, name]


class FakeMonitoring:
    """Windows and drift of `churn:3`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int | None, int]] = []
        self.labels: list[tuple[str, Label]] = []
        self.uncaptured = False

    async def windows(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[WindowStats]:
        self.asked.append((tenant, model_id, version, since_s))
        return [WindowStats(model_id=model_id, version=3, minute=29_934_000, requests=2, latency={4: 2})]

    async def drift(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[Drift]:
        self.asked.append((tenant, model_id, version, since_s))
        return [Drift(model_id, 3, "given", 400, 300, [FeatureDrift("age", 300, 0.25, 0.1, 0.2)])]

    async def quality(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[QualityReport]:
        self.asked.append((tenant, model_id, version, since_s))
        labelled = of_probability(0.75, positive=True, weight=1.0)
        return quality_reports([WindowStats(model_id=model_id, version=3, minute=1, rows=4, quality=labelled)])

    async def send_labels(self, tenant: str, labels: Sequence[Label]) -> int:
        self.labels += [(tenant, label) for label in labels]
        return len(labels)

    async def captured(
        self, tenant: str, model_id: str, version: int | None, since_s: int
    ) -> AsyncGenerator[CapturedRequest, None]:
        self.asked.append((tenant, model_id, version, since_s))
        if self.uncaptured:
            raise UnavailableError("no broker")
        yield CapturedRequest(
            id="r-1", model_id=model_id, version=3, scored_at=0, alias="champion", variant="champion",
            features={"age": [24.0, None], "id": ["a", "b"]}, outputs={"prediction": [0.25, math.inf]},
        )  # fmt: skip


class FakeRollouts:
    """Rollouts in memory."""

    def __init__(self) -> None:
        self.statuses: dict[tuple[str, str], RolloutStatus] = {}
        self.steered: list[tuple[str, str]] = []

    async def list_rollouts(self, tenant: str) -> dict[str, RolloutStatus]:
        return {model_id: status for (of, model_id), status in self.statuses.items() if of == tenant}

    async def show_rollout(self, tenant: str, model_id: str) -> RolloutStatus:
        if (tenant, model_id) not in self.statuses:
            raise RolloutNotFoundError(f"model {model_id!r} had no rollout")
        return self.statuses[tenant, model_id]

    async def start_rollout(self, tenant: str, model_id: str, body: RolloutBody, changed_by: str) -> RolloutStatus:
        if (tenant, model_id) in self.statuses:
            raise RolloutConflictError("one is running")
        rollout = Rollout(
            id="0" * 32, model_id=model_id, alias=body.alias, version=body.to, base=AliasTarget(version=1),
            base_revision=1, steps=[str(step) for step in parse_steps(body.steps)],
            guards=[str(guard) for guard in parse_guards(body.guards)], requests_min=body.requests_min,
            guard_requests_min=body.guard_requests_min, started_at=1, started_by=changed_by,
        )  # fmt: skip
        self.statuses[tenant, model_id] = RolloutStatus(rollout=rollout)
        return self.statuses[tenant, model_id]

    async def steer_rollout(self, tenant: str, model_id: str, action: str, changed_by: str) -> RolloutStatus:
        self.steered.append((action, changed_by))
        return await self.show_rollout(tenant, model_id)


class FakeOperating:
    """Remembers actions, and who asked for them."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.asked: list[tuple[str, int, int]] = []
        self.paused: list[PauseOverview] = []
        self.redriven: list[tuple[str, RedriveOptions]] = []

    async def note(self, tenant: str, action: Action, subject: str) -> None:
        actor = current_actor()
        assert actor is not None
        self.records.append(AuditRecord(at=1, action=action, subject=subject, by=actor.name, origin=actor.origin))

    async def audit(self, tenant: str, since_s: int, limit: int) -> list[AuditRecord]:
        self.asked.append((tenant, since_s, limit))
        return self.records

    async def pauses(self, tenant: str) -> list[PauseOverview]:
        return self.paused

    async def pause(self, tenant: str, kind: Paused, name: str, reason: str | None) -> PauseOverview:
        self.paused.append(PauseOverview(kind=kind, name=name, at=1, by="http", reason=reason))
        return self.paused[-1]

    async def resume(self, tenant: str, kind: Paused, name: str) -> bool:
        return bool(self.paused) and self.paused.pop().name == name

    async def redrive(self, tenant: str, options: RedriveOptions) -> RedriveReport:
        self.redriven.append((tenant, options))
        return RedriveReport(read=3, redriven=2, skipped={"incomplete": 1}, dry_run=options.dry_run, done=True)


class FakeWorker:
    """An application with all routes, and its backends."""

    def __init__(
        self,
        directory: Path,
        *,
        access: Access | None = None,
        admission: Admission | None = None,
        limits: AppLimits | None = None,
        own: UserRoutes | None = None,
    ) -> None:
        settings = Settings.from_environment({"INFERD_WORKER_ID": "w1"})
        self.streams = FakeStreams(settings.streams(), lambda _reason, _code: None)
        self.board = StatusBoard(settings)
        self.board.attach(self.streams)
        self.board.enter("running", "")
        self.predictions, self.models, self.jobs = FakePredictions(), FakeModels(), FakeJobs()
        self.routes = FakeRoutes()
        self.rollouts = FakeRollouts()
        self.monitoring = FakeMonitoring()
        self.operating = FakeOperating()
        self.dead_letters = FakeDeadLetters()
        self.topics = FakeTopics()
        self.app = create_app(
            access=access, admission=admission, limits=limits or AppLimits(), roles=ROLES_OF_OPERATIONS
        )
        if own is not None:
            own.add_to(self.app)
        self._add_routes(self.app, directory)

    def _add_routes(self, app: web.Application, directory: Path) -> None:
        add_observation(app, self.board)
        add_page(app)
        add_cluster(app, Forwarding(Alone()))
        add_dead_letters(app, self.dead_letters)
        add_topics(app, self.topics)
        add_predictions(app, self.predictions)
        add_models(app, self.models, Uploads(directory, len(app[ACCESS].tenants)))
        add_routes(app, self.routes)
        add_rollouts(app, self.rollouts)
        add_monitoring(app, self.monitoring)
        add_labels(app)
        add_operating(app, self.operating)
        add_jobs(app, self.jobs)
        add_peer(app)
        add_whoami(app)
        add_open_inference(app, readyz, DEFAULT_LIMITS)
        add_openapi(app)
        application = application_of(Settings.from_environment({}))
        add_asyncapi(app, application, self.routes.of)


def _manifest(deploy: Deploy, version: int, content: bytes) -> Manifest:
    facts = {"model_id": deploy.name, "version": version, "runtime": "lightgbm", "size": len(content)}
    given = {"features": [Feature("a")], **(deploy.manifest or {}), **facts}
    try:
        return msgspec.convert({**given, "sha256": hashlib.sha256(content).hexdigest()}, Manifest)
    except msgspec.ValidationError as error:
        raise MalformedError(f"manifest: {error}") from None


def _overview(manifest: Manifest) -> VersionOverview:
    return VersionOverview(version=manifest.version, digest=manifest.sha256, size=manifest.size)
