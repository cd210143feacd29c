"""Scores micro-batches with the shadow versions of their aliases, one at a time, once the answers are acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from traceback import clear_frames
from typing import Final
from weakref import finalize

import structlog

from inferd.schemas.errors import DeadlineExceededError, InternalError
from inferd.schemas.monitoring import WINDOW_S, WindowStats
from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import ModelCatalog, Outcome, Record, ServedModel, ShadowTarget, Version
from inferd.streams.kafka import Outgoing
from inferd.streams.monitoring import RowSample
from inferd.streams.shadow.low_thread import LowThread
from inferd.streams.shadow.publisher import Batches, ShadowPublisher
from inferd.streams.shadow.scores import Micro, Part, Reason, ShadowScores, ShadowScoring
from inferd.streams.tasks import BackgroundTasks
from inferd.streams.telemetry import ShadowCounters, ShadowSnapshot

log = structlog.get_logger(__name__)

MICRO_BATCHES_MAX: Final = 128
"""Micro-batches that are kept until they are scored: those that wait for acknowledgements, and those in the queue."""
LARGE_MAX, KEPT_ROWS_MAX = 4, 16_384
"""Beyond so many of them, all together have at most so many rows."""
GATHER_S: Final = 0.05
"""How long results are gathered, to be sent together."""
SENDS_MAX: Final = 16
"""Sends that wait for an acknowledgement."""
HANG_S: Final = 10.0
"""How long a shadow version may take for one micro-batch."""
CPU_S, ROW_CPU_S = 0.25, 0.0002
"""CPU time that it may take for one: so much, and so much more for each row. A version that loops in Python holds the
interpreter lock in turns with the answers, so that their latencies grow as long as it does."""
ASIDE_S, ASIDE_MAX_S = 60.0, 3_600.0
"""How long a version that took too long is not used; twice as long each further time."""
HTTP_DELAY_S: Final = 0.02
"""Time for answers over HTTP to leave before their requests are scored again."""
Count = Callable[[str, WindowStats, Sequence[RowSample]], None]
"""Tenant, counts, and some of the rows."""
Prefer = Callable[[str, Version], None]
"""Loads a version of a tenant if there is room."""
Work = Sequence[tuple[int, Sequence[Record], range]]
"""Parts of a micro-batch: partition number, records, and their range in the outcome."""
_Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Aside:
    """A version that took too long."""

    pause_s: float
    until: float
    """Unix seconds."""


class Shadows:
    """The shadow versions of all tenants of a worker. Nothing here raises or waits for the caller."""

    def __init__(
        self,
        names: Mapping[str, TenantTopics],
        catalogs: Mapping[str, ModelCatalog],
        scoring: ShadowScoring,
        publisher: ShadowPublisher,
        prefer: Prefer = lambda _tenant, _version: None,
        hang_s: float = HANG_S,
        cpu_s: float = CPU_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`names` and `catalogs`: by tenant; `clock`: Unix seconds."""
        self.loaded: Callable[[], bool] = lambda: False
        """Whether the worker has more requests to answer than it can take at once."""
        self.count: Count = lambda _tenant, _window, _samples: None
        """Adds what a shadow version of a tenant scored to the windows of monitoring."""
        self._topics = {tenant: topics.name("shadow-results") for tenant, topics in names.items()}
        self._catalogs = catalogs
        self._scoring, self._publisher, self._prefer, self._hang_s = scoring, publisher, prefer, hang_s
        self._cpu_s, self._clock = cpu_s, clock
        self._thread = LowThread("inferd-shadow")
        self._kept: dict[int, int] = {}
        """The rows of each micro-batch that anything refers to."""
        self._numbers = count()
        self._queue: deque[Part] = deque()
        self._work = asyncio.Event()
        self._held: dict[tuple[str, int], list[tuple[list[Outgoing], ShadowCounters]]] = {}
        """Results to be sent, by topic and partition of the requests."""
        self._sends = BackgroundTasks(lambda error: log.error("shadow_send_fault", exc_info=error))
        self._sending = asyncio.Semaphore(SENDS_MAX)
        self._counters: dict[_Key, ShadowCounters] = {}
        self._aside: dict[tuple[str, str, int, str], _Aside] = {}
        """Versions that took too long, by tenant, model id, version and digest."""

    # ------------------------------------------------------------------ called by the lane

    def parts(self, tenant: str, outcome: Outcome, work: Work) -> list[Part | None]:
        """For each part of a micro-batch, what to pass to `start` once its answers are acknowledged; None if no shadow
        version scores it. Its rows are kept until then, unless too many are."""
        if not outcome.shadows:
            return [None] * len(work)
        try:
            return self._parts(tenant, outcome, work)
        except Exception:  # the answers must not be concerned
            log.exception("shadow_fault", tenant=tenant)
            return [None] * len(work)

    def _parts(self, tenant: str, outcome: Outcome, work: Work) -> list[Part | None]:
        micro = Micro(tenant, outcome.scored, outcome.shadows)
        found = [Part(micro, partition, records, span) for partition, records, span in work]
        if not self._has_room(micro.rows):
            for part in found:
                self._drop(part, "busy")
            return [None] * len(work)
        number = next(self._numbers)
        self._kept[number] = micro.rows
        finalize(micro, self._kept.pop, number, None).atexit = False  # in whatever thread: one step of a dict
        return [part if any(part.targets()) else None for part in found]

    def start(self, part: Part) -> None:
        """The answers of a part are acknowledged."""
        self._queue.append(part)
        self._work.set()

    def start_soon(self, part: Part) -> None:
        """The answers of a part, which are returned over HTTP, are on their way."""
        asyncio.get_running_loop().call_later(HTTP_DELAY_S, self.start, part)

    def _has_room(self, rows: int) -> bool:
        kept = len(self._kept)
        if kept < LARGE_MAX:
            return True
        return kept < MICRO_BATCHES_MAX and rows + sum(self._kept.values()) <= KEPT_ROWS_MAX

    # ------------------------------------------------------------------ lifecycle

    async def run(self) -> None:
        """Scores the parts of the queue, until cancelled."""
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER_S)
            self._work.clear()
            try:
                for _ in range(len(self._queue)):
                    await self._score(self._queue.popleft())
                await self._flush()
            except Exception:  # the worker must not end because of a shadow
                log.exception("shadow_fault")
                self._work.set()

    async def close(self) -> None:
        """Drops the queue, and closes the producer. A version that hangs is not waited for."""
        self._queue.clear()
        self._thread.close()
        await self._sends.close()
        await self._publisher.close()

    @property
    def hanging(self) -> int:
        """How many threads hang."""
        return self._thread.hanging

    def snapshot(self) -> tuple[ShadowSnapshot, ...]:
        """The counts of each shadow version."""
        return tuple(counters.snapshot(*key) for key, counters in sorted(self._counters.items()))

    # ------------------------------------------------------------------

    async def _score(self, part: Part) -> None:
        if self.loaded():
            self._drop(part, "load")
            return
        for target, records in part.targets():
            for number in target.versions:
                counters = self._counted(part.micro.tenant, target.model_id, number)
                shadow, missing = self._version(part.micro.tenant, target.model_id, number)
                if shadow is not None and self._is_aside(part.micro.tenant, shadow):
                    self._fail_hung(part.micro.tenant, target, shadow, records, counters)
                elif shadow is None:
                    counters.dropped[missing] += records
                else:
                    await self._score_with(part, target, shadow, records, counters)

    def _version(self, tenant: str, model_id: str, number: int) -> tuple[ServedModel | None, Reason]:
        version = self._catalogs[tenant].version(model_id, number)
        if version is None or version.served is None:
            if version is not None:
                self._prefer(tenant, version)
            return None, "not_ready"
        return (version.served if self._thread.usable else None), "hung"

    def _is_aside(self, tenant: str, shadow: ServedModel) -> bool:
        """Whether a version took too long before. It is tried again after a time, unless a thread still hangs: each
        try could be one thread more that does."""
        aside = self._aside.get(self._identity(tenant, shadow))
        return aside is not None and (self._clock() < aside.until or self._thread.hanging > 0)

    def _put_aside(self, tenant: str, shadow: ServedModel, counters: ShadowCounters, why: str) -> None:
        identity, manifest = self._identity(tenant, shadow), shadow.manifest
        before = self._aside.get(identity)
        pause_s = ASIDE_S if before is None else min(2 * before.pause_s, ASIDE_MAX_S)
        aside = self._aside[identity] = _Aside(pause_s, self._clock() + pause_s)
        counters.aside_until = aside.until
        counters.last_error = f"{why} for a micro-batch; it is not used for {pause_s:g} s"
        log.error(
            "shadow_hangs", tenant=tenant, model=manifest.model_id, version=manifest.version,
            reason=counters.last_error,
        )  # fmt: skip

    def _fail_hung(
        self, tenant: str, target: ShadowTarget, shadow: ServedModel, records: int, counters: ShadowCounters
    ) -> None:
        """Requests that a version did not score because it takes too long: errors of that version."""
        counters.dropped["hung"] += records
        self._count(tenant, target, shadow, failed={DeadlineExceededError.code: records})

    async def _score_with(
        self, part: Part, target: ShadowTarget, shadow: ServedModel, records: int, counters: ShadowCounters
    ) -> None:
        topic, tenant = self._topics[part.micro.tenant], part.micro.tenant
        call = partial(self._scored, part, target, shadow, topic)
        cpu_s = self._cpu_s + ROW_CPU_S * part.micro.rows
        try:
            scores = await self._thread.call(call, self._hang_s, cpu_s)
        except TimeoutError as error:
            self._put_aside(tenant, shadow, counters, str(error))
            self._fail_hung(tenant, target, shadow, records, counters)
            return
        except Exception as fault:  # whatever a runtime raises is no concern of the answers
            if not counters.dropped["error"]:
                log.exception("shadow_raises", tenant=tenant, model=target.model_id, version=shadow.manifest.version)
            counters.dropped["error"] += records
            self._count(tenant, target, shadow, failed={InternalError.code: records})
            counters.last_error = f"{type(fault).__name__}: {fault}"[:200]
            _release(fault)
            return
        if self._aside.pop(self._identity(tenant, shadow), None) is not None:
            counters.aside_until = counters.last_error = None
        _add(counters, scores)
        self._count(tenant, target, shadow, scores)
        if scores.results:
            self._held.setdefault((topic, part.partition), []).append((scores.results, counters))

    async def _flush(self) -> None:
        """Sends the results that were gathered: a record batch costs the event loop as much as an answer."""
        held, self._held = self._held, {}
        if not held:
            return
        sends = await self._publisher.open()
        for (topic, partition), results in held.items():
            records = [record for part, _ in results for record in part]
            fill = partial(self._publisher.fill, topic, records)
            batches = await self._thread.call(fill, self._hang_s) if sends else ()
            await self._sending.acquire()
            counts = [(counters, len(part)) for part, counters in results]
            _ = self._sends.start(self._send(topic, partition, batches, counts))

    async def _send(
        self, topic: str, partition: int, batches: Batches, counts: Sequence[tuple[ShadowCounters, int]]
    ) -> None:
        """Sends results; the next ones do not wait for their acknowledgement."""
        try:
            if not (batches and await self._publisher.send(topic, partition, batches)):
                for counters, results in counts:
                    counters.dropped["publish"] += results
        finally:
            self._sending.release()

    def _scored(self, part: Part, target: ShadowTarget, shadow: ServedModel, topic: str) -> ShadowScores:
        """Runs in the thread: the scores, with the results that fit into the topic."""
        scores = self._scoring.score(part, target, shadow)
        fitting = [each for each in scores.results if self._publisher.fits(topic, each)]
        if len(fitting) < len(scores.results):
            scores.dropped["too_large"] += len(scores.results) - len(fitting)
            scores.results = fitting
        return scores

    def _count(
        self,
        tenant: str,
        target: ShadowTarget,
        shadow: ServedModel,
        scores: ShadowScores | None = None,
        failed: Mapping[str, int] | None = None,
    ) -> None:
        """Counts requests that were scored, or those that failed, by error code."""
        scores, errors = scores or ShadowScores(), dict(failed or {})
        if scores.requests or errors:
            self.count(
                tenant,
                WindowStats(
                    model_id=target.model_id, version=shadow.manifest.version, minute=int(self._clock()) // WINDOW_S,
                    alias=target.alias, variant="shadow", alias_revision=target.revision,
                    requests=scores.requests + sum(errors.values()),
                    rows=scores.rows, errors=errors, compared=scores.compared, differing=scores.differing,
                ),
                scores.samples,
            )  # fmt: skip

    def _identity(self, tenant: str, model: ServedModel) -> tuple[str, str, int, str]:
        manifest = model.manifest
        return tenant, manifest.model_id, manifest.version, manifest.sha256

    def _counted(self, tenant: str, model_id: str, version: int) -> ShadowCounters:
        return self._counters.setdefault((tenant, model_id, version), ShadowCounters())

    def _drop(self, part: Part, reason: Reason) -> None:
        for target, records in part.targets():
            for number in target.versions:
                self._counted(part.micro.tenant, target.model_id, number).dropped[reason] += records


def _release(fault: BaseException | None) -> None:
    """Releases the rows that the frames of an exception refer to: the frames may refer to the exception, too."""
    seen: list[BaseException] = []
    while fault is not None and fault not in seen:
        seen.append(fault)
        clear_frames(fault.__traceback__)
        fault = fault.__cause__ or fault.__context__


def _add(counters: ShadowCounters, scores: ShadowScores) -> None:
    counters.requests += scores.requests
    counters.rows += scores.rows
    counters.compared += scores.compared
    counters.differing += scores.differing
    counters.predict_s += scores.predict_s
    counters.dropped.update(scores.dropped)
