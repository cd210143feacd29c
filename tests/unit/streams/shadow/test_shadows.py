"""Scoring with shadow versions beside a lane: what is scored, what is dropped, and that nothing waits for it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from inferd.schemas.models import Alias
from inferd.schemas.monitoring import WindowStats
from inferd.schemas.shadow import decode_shadow_result
from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import Outcome
from inferd.streams.inference.catalog import ModelCatalog, Version
from inferd.streams.monitoring import RowSample
from inferd.streams.shadow import Shadows, ShadowScoring
from inferd.streams.shadow.scores import Part
from inferd.streams.shadow.shadows import ASIDE_MAX_S, ASIDE_S, KEPT_ROWS_MAX, LARGE_MAX, MICRO_BATCHES_MAX
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, KernelScorer, catalog_of, score
from tests.unit.streams.shadow.test_scores import LIMITS, fetched

DEADLINE_S = 20.0
TOPIC = "ns.default.shadow-results"
WINDOW = WindowStats(
    model_id="sum",
    version=9,
    minute=10,
    alias="champion",
    variant="shadow",
    alias_revision=0,
    requests=3,
    rows=3,
    compared=3,
)


class Published:
    """In place of a publisher."""

    def __init__(self) -> None:
        self.opens, self.acknowledges = True, True
        self.sent: list[tuple[str, int, str]] = []
        """Topic, partition and request id."""
        self.closed = False

    async def open(self) -> bool:
        return self.opens

    def fits(self, topic: str, outgoing: Any) -> bool:
        return len(outgoing[1]) < 1_000

    def fill(self, topic: str, records: Sequence[Any]) -> Sequence[Any]:
        return list(records)

    async def send(self, topic: str, partition: int, batches: Sequence[Any]) -> bool:
        self.sent += [(topic, partition, decode_shadow_result(value).id) for _, value, _ in batches]
        return self.acknowledges

    async def close(self) -> None:
        self.closed = True


class World:
    """Shadow versions of `sum`: version 1 answers, 9 is its shadow."""

    def __init__(
        self, runtime: SumRuntime | None = None, hang_s: float = DEADLINE_S, cpu_s: float = DEADLINE_S, **alias: Any
    ) -> None:
        self.now = 600.0
        self.catalog: ModelCatalog = catalog_of(sum_model(1), sum_model(9, runtime))
        self.catalog.put_alias("sum", "champion", Alias(1, **{"shadow": [9]} | alias))
        self.published, self.preferred = Published(), list[Version]()
        self.shadows = Shadows(
            {"default": TenantTopics("ns", "default")}, {"default": self.catalog}, ShadowScoring("w1"),
            self.published, lambda _tenant, version: self.preferred.append(version), hang_s, cpu_s,  # type: ignore[arg-type]
            lambda: self.now,
        )  # fmt: skip
        self.windows: list[WindowStats] = []
        self.samples: list[RowSample] = []
        self.shadows.count = self._count

    def _count(self, _tenant: str, window: WindowStats, samples: Sequence[RowSample]) -> None:
        self.windows.append(window)
        self.samples += samples

    def score(self, first: int = 0, requests: int = 3) -> tuple[Outcome, Sequence[Fetched]]:
        records = [fetched(first + n, [float(n), 1.0]) for n in range(requests)]
        return score(KernelScorer(self.catalog, LIMITS), records), records

    def parts(self, first: int = 0, requests: int = 3) -> list[Part | None]:
        outcome, records = self.score(first, requests)
        return self.shadows.parts("default", outcome, [(2, records, range(len(records)))])

    def part(self, first: int = 0, requests: int = 3) -> Part:
        (part,) = self.parts(first, requests)
        assert part is not None
        return part

    def dropped(self, version: int = 9) -> dict[str, int]:
        return next((each.dropped for each in self.shadows.snapshot() if each.version == version), {})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.shadows.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.shadows.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # conditions of any kind
            await asyncio.sleep(0.001)


async def test_results_are_published_once_the_answers_are_acknowledged_and_not_before() -> None:
    world = World()
    async with world.running():
        part = world.part()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not world.shadows.snapshot()
        world.shadows.start(part)
        await until(lambda: world.published.sent)
    assert world.published.sent == [(TOPIC, 2, f"r{n}") for n in range(3)]
    (snapshot,) = world.shadows.snapshot()
    assert (snapshot.model_id, snapshot.version, snapshot.requests, snapshot.rows) == ("sum", 9, 3, 3)
    assert (snapshot.compared, snapshot.differing, snapshot.dropped) == (3, 0, {})
    assert world.published.closed
    assert world.windows == [WINDOW]
    (sample,) = world.samples
    assert (sample.model.manifest.version, sample.arrays["prediction"].tolist()) == (9, [1.0, 2.0, 3.0])
    assert isinstance(sample.inputs, np.ndarray)
    assert sample.inputs.tolist() == [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]


async def test_without_shadow_versions_there_is_nothing_to_score() -> None:
    world = World(shadow=None)
    assert world.parts() == [None]
    assert not world.shadows.snapshot()


async def test_several_shadow_versions_score_the_same_rows() -> None:
    world = World(shadow=[9, 8])
    world.catalog.put(Version(sum_model(8).manifest, "ready", None, sum_model(8)))
    async with world.running():
        world.shadows.start(world.part())
        await until(lambda: len(world.published.sent) == 6)
    assert [each.version for each in world.shadows.snapshot()] == [8, 9]


async def test_a_version_that_is_not_loaded_is_loaded_if_there_is_room_and_dropped_until_then() -> None:
    world = World()
    waiting = Version(sum_model(9).manifest, "unloaded", None, None, sum_model(9).manifest)
    world.catalog.put(waiting)
    async with world.running():
        world.shadows.start(world.part())
        await until(lambda: world.dropped() == {"not_ready": 3})
        assert world.preferred == [waiting]
        world.catalog.remove("sum", 9)
        world.shadows.start(world.part())
        await until(lambda: world.dropped() == {"not_ready": 6})


async def test_under_load_the_shadow_gives_way() -> None:
    world = World()
    world.shadows.loaded = lambda: True
    async with world.running():
        world.shadows.start(world.part())
        await until(lambda: world.dropped() == {"load": 3})
        world.shadows.loaded = lambda: False
        world.shadows.start(world.part())
        await until(lambda: world.published.sent)


async def test_few_large_micro_batches_are_kept_whether_acknowledged_or_not() -> None:
    world = World()
    kept = [world.part(requests=KEPT_ROWS_MAX // LARGE_MAX) for _ in range(LARGE_MAX)]
    assert world.parts() == [None]
    assert world.dropped() == {"busy": 3}
    del kept[0]  # rewound: its output is dropped
    kept.append(world.part())
    async with world.running():
        while kept:
            world.shadows.start(kept.pop())
        await until(lambda: len(world.published.sent) == 3 * KEPT_ROWS_MAX // LARGE_MAX + 3)
    assert world.parts()[0] is not None


async def test_more_small_micro_batches_are_kept() -> None:
    world = World()
    kept = [world.part(requests=1) for _ in range(MICRO_BATCHES_MAX)]
    assert world.parts() == [None]
    kept.pop()
    assert world.parts()[0] is not None


async def test_a_version_that_raises_is_counted_and_logged_once() -> None:
    runtime = SumRuntime()
    runtime.raises = lambda _matrix: ZeroDivisionError("oh")
    world = World(runtime)
    with capture_logs() as logged:
        async with world.running():
            await raising(world, runtime)
    (snapshot,) = world.shadows.snapshot()
    assert snapshot.last_error == "ZeroDivisionError: oh"
    assert [entry["event"] for entry in logged] == ["shadow_raises"]
    assert world.windows[0] == msgspec.structs.replace(WINDOW, rows=0, compared=0, errors={"internal": 3})
    assert world.windows[-1] == WINDOW


async def raising(world: World, runtime: SumRuntime) -> None:
    """Several micro-batches that raise, and one that does not."""
    for number in range(1, MICRO_BATCHES_MAX + 9):
        world.shadows.start(world.part())
        await until(lambda number=number: world.dropped() == {"error": 3 * number})  # type: ignore[misc]
    runtime.raises = lambda _matrix: None
    world.shadows.start(world.part())
    await until(lambda: world.published.sent)


FAILED = msgspec.structs.replace(WINDOW, rows=0, compared=0, errors={"deadline_exceeded": 3})


async def test_a_version_that_hangs_is_put_aside_and_others_are_used() -> None:
    go = threading.Event()
    runtime = SumRuntime()

    def hangs(_matrix: Any) -> None:
        go.wait()

    runtime.raises = hangs
    world = World(runtime, hang_s=1.0, shadow=[9, 8])
    world.catalog.put(Version(sum_model(8).manifest, "ready", None, sum_model(8)))
    async with world.running():
        world.shadows.start(world.part())
        await until(lambda: world.dropped() == {"hung": 3} and len(world.published.sent) == 3)
        world.now += ASIDE_MAX_S  # its thread still hangs
        world.shadows.start(world.part())
        await until(lambda: world.dropped() == {"hung": 6} and len(world.published.sent) == 6)
        assert len(runtime.calls) == 1
        later = msgspec.structs.replace(FAILED, minute=FAILED.minute + int(ASIDE_MAX_S) // 60)
        assert [window for window in world.windows if window.errors] == [FAILED, later]
        other = sum_model(9)
        world.catalog.put(Version(other.manifest, "ready", None, other))
        world.shadows.start(world.part())
        await until(lambda: world.dropped() == {"hung": 9})
    go.set()


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time of threads")
async def test_a_version_that_loops_in_python_is_ended_and_tried_again_after_longer_and_longer_times() -> None:
    runtime, loops = SumRuntime(), [True]

    def looping(_matrix: Any) -> None:
        while loops[0]:
            pass

    runtime.raises = looping
    world = World(runtime, cpu_s=0.01)
    with capture_logs() as logged:
        async with world.running():
            for tries, (passed_s, pause_s) in enumerate(((0.0, ASIDE_S), (ASIDE_S, 2 * ASIDE_S)), 1):
                world.now += passed_s
                world.shadows.start(world.part())
                await until(lambda tries=tries: world.dropped() == {"hung": 6 * tries - 3})  # type: ignore[misc]
                (snapshot,) = world.shadows.snapshot()
                assert snapshot.aside_until == world.now + pause_s
                assert "CPU time" in (snapshot.last_error or "")
                await until(lambda: not world.shadows.hanging)
                world.now += pause_s - 1
                world.shadows.start(world.part())
                await until(lambda tries=tries: world.dropped() == {"hung": 6 * tries})  # type: ignore[misc]
                world.now -= pause_s - 1
            assert [entry["event"] for entry in logged] == ["shadow_hangs"] * 2
            loops[0], world.now = False, world.now + 2 * ASIDE_S
            world.shadows.start(world.part())
            await until(lambda: world.published.sent)
    (snapshot,) = world.shadows.snapshot()
    assert (snapshot.aside_until, snapshot.last_error) == (None, None)
    assert [window.errors for window in world.windows[:4]] == [FAILED.errors] * 4


async def test_a_stop_does_not_wait_for_a_version_that_hangs() -> None:
    go, called = threading.Event(), threading.Event()
    runtime = SumRuntime()

    def hangs(_matrix: Any) -> None:
        called.set()
        go.wait()

    runtime.raises = hangs
    world = World(runtime)
    async with asyncio.timeout(DEADLINE_S), world.running():
        world.shadows.start(world.part())
        await asyncio.to_thread(called.wait, DEADLINE_S)
    go.set()


async def test_results_that_are_not_acknowledged_are_counted() -> None:
    world = World()
    world.published.acknowledges = False
    async with world.running():
        world.shadows.start(world.part())
        await until(lambda: world.dropped() == {"publish": 3})
        world.published.opens = False
        world.shadows.start(world.part(requests=2))
        await until(lambda: world.dropped() == {"publish": 5})
    assert world.shadows.snapshot()[0].compared == 5, "they are compared nevertheless"


async def test_requests_over_http_are_scored_a_little_after_their_answers() -> None:
    world = World()
    async with world.running():
        world.shadows.start_soon(world.part())
        await asyncio.sleep(0)
        assert not world.published.sent
        await until(lambda: world.published.sent)


async def test_unexpected_exceptions_stop_neither_the_lane_nor_later_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    with monkeypatch.context() as patched, capture_logs() as logged:
        patched.setattr(Part, "targets", lambda _part: 1 / 0)
        assert world.parts() == [None]
        async with world.running():
            world.shadows.start(Part(cast(Any, None), 0, [], range(0)))
            await until(lambda: len(logged) == 2)
            patched.undo()
            world.shadows.start(world.part())
            await until(lambda: world.published.sent)
    assert {entry["event"] for entry in logged} == {"shadow_fault"}
