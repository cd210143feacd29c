"""Builds and runs a worker's streams from the settings: the Faust app, the lane, the model follower, the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from inferd.schemas.errors import DeadlineExceededError, ModelNotFoundError, ModelNotReadyError
from inferd.schemas.routes import Route
from inferd.schemas.topics import TenantTopics, tenant_of_topic
from inferd.streams.admission import Admission
from inferd.streams.composition import (
    RouteInputs,
    TenantParts,
    compose_routes,
    compose_shadows,
    compose_tenants,
    guarantee_of,
)
from inferd.streams.connection import set_bulk_topics
from inferd.streams.faust_app import FaustGroup, create_app, owner_urls
from inferd.streams.group import LaneApp, LaneConsumer, instance_id_conflict, kafka_tps
from inferd.streams.http_requests import HttpAnswer
from inferd.streams.jobs.job_store import JobStore
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.jobs.service import JobService
from inferd.streams.kafka import (
    REFRESH_INTERVAL_S,
    Destinations,
    TopicState,
    TopicWatch,
    UsedPartitions,
    describe_topics,
    install_batch_checks,
    missing_reason,
    topic_specs,
)
from inferd.streams.lane import PUBLISH_ERRORS, Handover, Lane, LaneContext, describe
from inferd.streams.models.follower import ModelFollower
from inferd.streams.models.rejections import Rejections
from inferd.streams.requests import RequestProcessor, share_of
from inferd.streams.routes import RouteService, RouteTable
from inferd.streams.routes.schema_registry import SchemaCache, SchemaRegistryClient
from inferd.streams.serving import UserCode
from inferd.streams.settings import StreamSettings
from inferd.streams.shadow import Shadows
from inferd.streams.state import StateDirectory, claim_state_directory
from inferd.streams.status import fault_of, take_snapshot
from inferd.streams.tasks import cancelled
from inferd.streams.telemetry import LaneMeasures, Phase, StallDetector, StreamsSnapshot, make_tracing

log = structlog.get_logger(__name__)

EXIT_FAILED = 1
EXIT_SETTINGS = 2
EXIT_STALLED = 71
WATCH_INTERVAL_S = 1.0
STOPPED = "this worker stopped before it scored the request: retry, or ask another worker"
LEAVE_S, LEAVE_S_MIN = 2.0, 0.5
"""Part of the shutdown timeout that is reserved for leaving the group, and its minimum."""


class Streams:
    """The streams of one worker: lifecycle, HTTP requests to the lane, and status."""

    def __init__(
        self, settings: StreamSettings, on_fatal: Callable[[str, int], None], user_code: UserCode | None = None
    ) -> None:
        """`on_fatal(reason, exit_code)` must end the process at once, without commits; `user_code`: users' classes."""
        self._user_code = user_code or UserCode()
        self.settings = settings
        self.measures = LaneMeasures(make_tracing(settings))
        self.route_measures = LaneMeasures(self.measures.tracing)
        self.route_measures.by_model = self.measures.by_model
        self.routes: RouteService | None = None
        self.schemas: SchemaCache | None = None
        self.shadows: Shadows | None = None
        self.route_table = RouteTable(settings.tenants, settings.limits)
        self.follower: ModelFollower | None = None
        self.lane: Lane | None = None
        self.handover: Handover | None = None
        self.admission = Admission(settings, self._exclude)
        self._on_fatal = on_fatal
        self._app: LaneApp | None = None
        self.tenants: Mapping[str, TenantParts] = {}
        self._state_directory: StateDirectory | None = None
        self._reader = RecordReader(settings)
        self.topics = TopicWatch(
            settings.connection,
            f"inferd-{settings.worker_id}-topics",
            [spec.name for spec in topic_specs(settings)],
            self._read_again,
        )
        self.used = UsedPartitions(settings, self.topics.partitions_of)
        self.jobs = JobService(
            settings, self._owned_jobs, self._reader, self._owner_url, self._retrieved,
            lambda tenant: self.used.of(tenant, "jobs"),
        )  # fmt: skip
        self._tasks: list[asyncio.Task[Any]] = []
        self._lifecycle: Literal["starting", "running", "draining", "stopped"] = "starting"
        self._phase: Phase = "starting"
        self._phase_since = time.monotonic()

    # ------------------------------------------------------------------ lifecycle

    async def start(self) -> None:
        """Verify topics, read and load the models, join the group.

        Raises `ServerError` for a problem that the user must fix, `KafkaError` or `OSError` if the broker does not
        answer. After an error everything is stopped again.
        """
        try:
            topics = await self.admission.open()
            rejections = Rejections(self.settings, leads=self._leads)
            loaded, denied = partial(self.measures.observe_step, "load"), self.admission.recheck
            self.route_table = RouteTable(self.settings.tenants, self.settings.limits)
            follower = self.follower = ModelFollower(
                self.settings, rejections.reject, self._crashed, loaded, denied, self.route_table.apply
            )  # fmt: skip
            load = partial(follower.on_demand.load_from_thread, asyncio.get_running_loop())
            self._user_code.follow(follower.catalogs, load)
            follower.follow(self.admission.readable)
            await follower.start()
            self._run(rejections.run(), "rejections")
            self._run(self._ping(follower), "ping")
            await self._join(topics, follower)
        except BaseException:
            await self.stop(0)
            self._lifecycle, self.follower, self.lane, self._app = "starting", None, None, None
            raise

    async def _join(self, topics: list[TopicState], follower: ModelFollower) -> None:
        describe = partial(describe_topics, self.settings)
        destinations = Destinations(topics, self.settings.reply_to_allowed, describe)
        await self.topics.refresh()
        self._app = app = create_app(self.settings)
        app.partitions_max = self.used.most
        group = FaustGroup(app)
        directory = self._claim_directory()
        shadows = self.shadows = compose_shadows(self.settings, follower, destinations)
        self.tenants = compose_tenants(
            app, self.settings, follower, self.measures, self._reader, directory, self._user_code, destinations,
            self.used,
        )  # fmt: skip
        processors = {each.topic: each for tenant in self.tenants.values() for each in tenant.processors}
        guarantee = guarantee_of(self.settings, self.measures, destinations, processors)
        recheck = self.admission.recheck
        context = LaneContext(
            settings=self.settings, processors=processors, group=group, topics=self.topics, measures=self.measures,
            on_crash=self._crashed, destinations=destinations, on_denied=recheck,
            handover=self._handover(destinations),
        )  # fmt: skip
        lane = self.lane = Lane(context, guarantee)
        app.intake, app.denied = lane, recheck
        shadows.loaded = lambda: lane.backlogged
        shadows.count = lambda tenant, window, samples: self.tenants[tenant].monitor.later(window, samples)
        follower.on_demand.on_change = self._resume_requests
        for parts in self.tenants.values():
            parts.requests.shadows = shadows
            parts.requests.quota.share_of_worker = partial(self._share, parts.requests)
            parts.requests.direct.wake = partial(lane.wake, parts.requests.topic)
        self.admission.admit(follower)
        routes = self.routes = compose_routes(
            self.settings, RouteInputs(self.route_table, self.route_measures, self._open_schemas(), shadows),
            self.tenants, follower, self.topics, destinations, self.admission,
        )  # fmt: skip
        lane.add(await routes.first())
        self._follow_lane(lane)
        app.on_rebalance_complete.connect(self._on_rebalance_complete)
        for topic in sorted(lane.topics):
            app.topics.add(app.topic(topic, key_serializer="raw", value_serializer="raw", acks=False))
        self._lifecycle = "running"
        self._run(lane.run(), "lane")
        self._run(self._run_app(app), "faust")
        self._run(shadows.run(), "shadows")
        self._run(self._watch(app, lane), "watch")
        self._run(self._watch_topics(group, lane), "topics")
        self._run(routes.run(group, lane, partial(self._follow_lane, lane)), "routes")
        self._run(self.admission.run(follower), "admission")

    def _handover(self, destinations: Destinations) -> Handover:
        tables = [table for parts in self.tenants.values() for table in parts.keyed_tables(self.settings, self.used)]
        handover = self.handover = Handover(self.settings, self.topics, tables, destinations)
        return handover

    def routes_of(self, tenant: str) -> Collection[Route]:
        """The routes of a tenant, as their records say."""
        return list(self.route_table.routes.get(tenant, {}).values())

    def _follow_lane(self, lane: Lane) -> None:
        """Tells the consumer which topics the lane reads."""
        set_bulk_topics({topic for topic, kind in lane.kinds.items() if kind != "requests"})
        install_batch_checks(set(lane.topics), self.settings.limits.batch_expanded_bytes_max)

    def _open_schemas(self) -> SchemaCache | None:
        """The schemas of the registry; None if there is none."""
        connection = self.settings.schema_registry
        if connection is not None:
            self.schemas = SchemaCache(SchemaRegistryClient(connection), self._crashed, self._resume_routes)
        return self.schemas

    def _resume_routes(self) -> None:
        """Resumes records of routes that wait for a schema."""
        if self.lane is not None and self.routes is not None:
            for running in self.routes.running.values():
                for processor in running.processors.values():
                    self.lane.resume(processor.tenant)

    def _resume_requests(self, tenant: str) -> None:
        """Resumes requests of a tenant that wait for a model."""
        if self.lane is not None:
            self.tenants[tenant].requests.direct.resume()
            self.lane.resume(tenant)

    def _claim_directory(self) -> Path | None:
        """The directory of local state stores; None if they are in memory."""
        if self.settings.cache.store == "memory":
            return None
        if self._state_directory is None:
            self._state_directory = claim_state_directory(self.settings.data_dir / "tables")
        return self._state_directory.path

    async def stop(self, timeout_s: float) -> bool:
        """Drain: stop fetching, finish in-flight batches, commit, leave the group. False if the deadline passed first.

        After the deadline nothing is committed.
        """
        deadline = time.monotonic() + timeout_s
        self._lifecycle = "draining"
        self._enter("draining")
        in_time = await self._drain(timeout_s - min(LEAVE_S, timeout_s / 2))
        await cancelled(self._tasks)
        self._tasks.clear()
        in_time &= await self._leave(max(LEAVE_S_MIN, deadline - time.monotonic()))
        if self.shadows is not None:
            await self.shadows.close()
        await self.jobs.close()
        await self._reader.close()
        if self.schemas is not None:
            await self.schemas.close()
            self.schemas = None
        await self.topics.close()
        for tenant in self.tenants.values():
            for table in tenant.tables:
                await table.close()
        if self._state_directory is not None:
            self._state_directory.close()
            self._state_directory = None
        await self.admission.close()
        if self.follower is not None:
            await self.follower.stop()
        if self.measures.tracing is not None:
            await asyncio.to_thread(self.measures.tracing.close)
        self._lifecycle = "stopped"
        self._enter("stopped")
        return in_time

    async def _drain(self, timeout_s: float) -> bool:
        if self.lane is None:
            return True
        try:
            await asyncio.wait_for(self.lane.drain(), timeout_s)
        except TimeoutError:
            return False
        finally:
            await self.lane.close()
            for parts in self.tenants.values():
                parts.requests.direct.fail_all(ModelNotReadyError(STOPPED))
        return True

    async def _leave(self, timeout_s: float) -> bool:
        if self._app is None:
            return True
        try:
            await asyncio.wait_for(self._app.stop(), timeout_s)
        except TimeoutError:
            return False
        except (KafkaError, OSError) as error:  # the session timeout removes this member
            log.warning("group_not_left", reason=describe(error))
        return True

    async def _run_app(self, app: LaneApp) -> None:
        await app.start()
        await app.wait_until_stopped()
        # A graceful stop cancels this task first.
        raise app.crash_reason or RuntimeError("faust stopped by itself")

    def _run(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task until the stop; if it fails, the process ends."""
        self._tasks.append(asyncio.create_task(self._guard(coroutine), name=f"inferd-{name}"))

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)

    def _retrieved(self, began: float) -> None:
        self.measures.observe_step("retrieve", time.perf_counter() - began)
        if self.measures.tracing is not None:
            self.measures.tracing.step("retrieve", began)

    def _crashed(self, error: BaseException) -> None:
        log.error("streams_crashed", exc_info=error)
        self._on_fatal(f"the streams failed: {describe(error)}", EXIT_FAILED)

    # ------------------------------------------------------------------ HTTP requests

    async def predict(
        self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = (), *, timeout_s: float | None = None
    ) -> HttpAnswer:
        """Score one encoded request in the next micro-batch of the lane; returns the encoded result.

        Raises the `InferenceError` of a request that cannot be scored, `ModelNotReadyError` if this worker cannot score
        now, `ModelNotFoundError` for a tenant that it does not serve, `QuotaExceededError` beyond the quota, or
        if too many requests wait, `DeadlineExceededError` after `timeout_s`.
        """
        if self.lane is None or self._lifecycle != "running":
            raise ModelNotReadyError(f"this worker is {self._phase}: retry later, or ask another worker")
        parts = self.tenants.get(tenant)
        if parts is None:
            raise ModelNotFoundError(f"tenant {tenant!r} is not served by this worker")
        if (reason := self.admission.unserved_reason(tenant)) is not None:
            raise ModelNotReadyError(f"tenant {tenant!r} is not served by this worker now: {reason}")
        parts.requests.quota.check(len(value))
        request = parts.requests.direct.ask(value, headers, int(time.time() * 1000))
        self.lane.wake(parts.requests.topic)
        try:
            return await asyncio.wait_for(request.answer, timeout_s)
        except TimeoutError:
            raise DeadlineExceededError(f"no result within {timeout_s:g} s") from None

    # ------------------------------------------------------------------ assignment

    async def _on_rebalance_complete(self, *_: Any, **__: Any) -> None:
        assert self.lane is not None
        await self.lane.acquire(kafka_tps(self._consumer().assignment()))

    def _consumer(self) -> LaneConsumer:
        assert self._app is not None
        return cast(LaneConsumer, self._app.consumer)

    def _exclude(self, topics: frozenset[str]) -> None:
        if self._app is not None:
            self._consumer().exclude(topics)

    def _share(self, requests: RequestProcessor) -> float:
        """The share of this worker of the quota of a tenant."""
        return share_of(len(requests.owned), self.topics.partitions_of(requests.topic))

    def _owned_jobs(self) -> Mapping[str, JobStore]:
        return {tenant: parts.jobs.owned for tenant, parts in self.tenants.items()}

    def _owner_url(self, tp: TopicPartition) -> str | None:
        """URL of the worker that a partition is assigned to, from the metadata of Faust's assignor."""
        return owner_urls(self._app).get(tp) if self._app is not None else None

    def peers(self) -> frozenset[str]:
        """URLs of the other workers of the group."""
        urls = owner_urls(self._app).values() if self._app is not None else ()
        return frozenset(urls) - {self.settings.url}

    def _leads(self, tenant: str) -> bool:
        """Whether this worker is the tenant's leader: partition 0 of its `requests` is assigned to it."""
        first = TenantTopics(self.settings.namespace, tenant).name("requests")
        return self.lane is not None and TopicPartition(first, 0) in self.lane.partitions

    # ------------------------------------------------------------------ monitoring

    async def _watch(self, app: LaneApp, lane: Lane) -> None:
        """End the process if Faust has crashed or processing has stalled."""
        stall = StallDetector(self.settings.group.stall_timeout_s)
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._enter(self._observe_phase())
            if app.crashed:
                raise app.crash_reason or RuntimeError("faust crashed")
            if self._consumer().was_replaced:
                self._on_fatal(instance_id_conflict(self.settings.group), EXIT_SETTINGS)
                return
            if self._phase == "running" and not self._consumer().fetching:
                raise RuntimeError("aiokafka's fetcher has ended")
            stuck = stall.check(
                self._phase, self._progress(lane), busy=lane.busy_besides(self._paused()), fault=fault_of(self)
            )
            if stuck is not None:
                self._on_fatal(stuck, EXIT_STALLED)
                return

    def _paused(self) -> Collection[str]:
        """Tenants with something that is paused: their records may wait for long."""
        pauses = self.follower.pauses if self.follower is not None else {}
        return [tenant for tenant, of_tenant in pauses.items() if of_tenant.all]

    def _progress(self, lane: Lane) -> int:
        """Changes with all progress, also within a prediction that takes minutes."""
        catalogs = self.follower.catalogs.values() if self.follower is not None else ()
        return lane.progress + sum(catalog.rows_scored_alone() for catalog in catalogs)

    async def _watch_topics(self, group: FaustGroup, lane: Lane) -> None:
        used = list(self.used)
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            with contextlib.suppress(*PUBLISH_ERRORS):  # `_ping` reports an unreachable broker
                await self.topics.refresh()
                if used != (used := list(self.used)):
                    log.warning("used_partitions_changed", used=used)
                    self._consumer().rejoin()
                if lane.settled:
                    group.refresh({t: n for t, n in self.topics.partitions.items() if t in self._readable(lane)})
                lane.check_topics()
                if lane.settled and self.handover is not None:
                    for topic in await self.handover.left(lane.assigned, group.consumer):
                        lane.take_over_again(tenant_of_topic(topic))

    def _readable(self, lane: Lane) -> frozenset[str]:
        """Topics of the lane that are not excluded."""
        return lane.topics - (self._app.excluded if self._app is not None else frozenset())

    def _read_again(self, topic: str) -> None:
        self._reader.forget(topic)
        if self.handover is not None:
            self.handover.forget(topic)
        if self.follower is not None:
            self.follower.read_again(topic)

    def topic_problems(self) -> list[str]:
        """Problems of topics and their partitions, each with its remedy."""
        problems = [missing_reason(topic) for topic in self.topics.missing]
        if self.lane is None or self._app is None or not self.lane.settled:
            return problems
        assigned = owner_urls(self._app).keys() | self.lane.assigned
        # A route that cannot be served is its own problem (`RouteSnapshot`): the worker is ready.
        own = {topic for topic, kind in self.lane.kinds.items() if kind != "routes"}
        problems += self.topics.unowned_reasons(self._readable(self.lane) & own, assigned, self.used.most)
        return problems + self.lane.unserved

    async def _ping(self, follower: ModelFollower) -> None:
        while True:
            await follower.ping()
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _observe_phase(self) -> Phase:
        if self._lifecycle != "running" or self._app is None:
            return "starting" if self._lifecycle == "running" else self._lifecycle
        if self._app.in_recovery or (self.lane is not None and self.lane.restoring is not None):
            return "recovering"
        if self._app.rebalancing:
            return "rebalancing"
        return "running" if self.lane is not None and self.lane.settled else "starting"

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase, self._phase_since = phase, time.monotonic()
            log.info("phase", phase=phase)

    def snapshot(self) -> StreamsSnapshot:
        """The current state."""
        self._enter(self._observe_phase())
        return take_snapshot(self, self._phase, time.monotonic() - self._phase_since)

    @property
    def generation(self) -> int:
        return self._app.consumer_generation_id if self._app is not None else -1

    @property
    def rebalances(self) -> int:
        return self._app.rebalancing_count if self._app is not None else 0

    def highwater(self, tp: TopicPartition) -> int | None:
        """The high watermark of a partition as of the last fetch; None if it is not known."""
        try:
            end: int | None = self._consumer().aiokafka.highwater(tp)
        except Exception:  # noqa: BLE001
            # The partition is not assigned any more, or the consumer is not started.
            return None
        return end
