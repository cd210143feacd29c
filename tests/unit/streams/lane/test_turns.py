"""Turns on the event loop: one at a time, and time shared by weight among those that wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from inferd.streams.lane.turns import JobsShare, Share, Timed, Turns


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # each turn of the loop is what is tested
        await asyncio.sleep(0)


async def work(turns: Turns, share: Share, cost_s: float, name: str, had: list[str]) -> None:
    while True:
        await turns.take(share)
        share.used_s += cost_s / share.weight
        had.append(name)
        await asyncio.sleep(0)


async def shares_of(rounds: int, **workers: tuple[float, float]) -> Counter[str]:
    """Turns of workers that always wait, each with its weight and the cost of one turn."""
    turns, had = Turns(), list[str]()
    tasks = [
        asyncio.create_task(work(turns, Share(weight), cost, name, had)) for name, (weight, cost) in workers.items()
    ]
    await until(lambda: len(had) >= rounds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return Counter(had)


async def test_the_worker_with_the_least_time_is_next() -> None:
    had = await shares_of(1_100, cheap=(1.0, 0.001), dear=(1.0, 0.010))
    assert had["cheap"] == pytest.approx(10 * had["dear"], abs=20)


async def test_time_is_shared_by_weight() -> None:
    had = await shares_of(900, one=(1.0, 0.001), half=(0.5, 0.001))
    assert had["one"] == pytest.approx(2 * had["half"], abs=5)


async def test_one_that_was_idle_does_not_catch_up() -> None:
    turns, had = Turns(), list[str]()
    busy, late = Share(), Share()
    first = asyncio.create_task(work(turns, busy, 0.001, "busy", had))
    await until(lambda: len(had) >= 500)
    had.clear()
    second = asyncio.create_task(work(turns, late, 0.001, "late", had))
    await until(lambda: len(had) >= 100)
    first.cancel(), second.cancel()
    assert Counter(had)["busy"] == pytest.approx(50, abs=5)


async def test_the_loop_runs_once_between_two_turns() -> None:
    turns, had = Turns(), list[str]()
    tasks = [asyncio.create_task(work(turns, Share(), 0.001, str(number), had)) for number in range(5)]
    await asyncio.sleep(0)
    for _ in range(50):
        before = len(had)
        await asyncio.sleep(0)
        assert len(had) <= before + 1
    for task in tasks:
        task.cancel()


async def test_a_worker_cancelled_while_it_waits_does_not_delay_others() -> None:
    turns, had = Turns(), list[str]()
    first, gone = asyncio.create_task(work(turns, Share(), 0.001, "first", had)), Share(urgent=True)
    waiting = [asyncio.create_task(turns.take(gone)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await until(lambda: len(had) >= 10)
    first.cancel()


async def test_turns_are_shared_with_urgent_workers_that_had_one_recently(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, requests, chunks = Turns(), Share(urgent=True), Share()
    await turns.take(chunks)
    assert not turns.contended(requests), "chunks are in no hurry"
    await turns.take(requests)
    assert (turns.contended(requests), turns.contended(chunks)) == (False, True)
    monkeypatch.setattr("inferd.streams.lane.turns.CONTENDED_S", 0.0)
    assert not turns.contended(chunks)


async def test_only_time_that_blocks_the_loop_is_charged() -> None:
    share, released = Share(weight=0.5), asyncio.Event()

    async def waits() -> str:
        await released.wait()
        return "result"

    task = asyncio.create_task(_await(Timed(waits(), share)))
    await asyncio.sleep(0.2)
    released.set()
    assert await task == "result"
    assert 0 < share.used_s < 0.2, "the wait is free"


async def test_a_cancellation_reaches_the_coroutine() -> None:
    caught = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            caught.append(error)
            raise

    task = asyncio.create_task(_await(Timed(waits(), Share())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(caught) == 1


async def test_an_exception_is_passed_on_unchanged() -> None:
    async def raises() -> None:
        await asyncio.sleep(0)
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        await Timed(raises(), Share())


async def _await(timed: Timed[str] | Timed[None]) -> str | None:
    return await timed


@pytest.mark.parametrize(("share", "pause_s"), [(0.5, 0.2), (0.25, 0.6), (1.0, 0.0), (0.05, 1.0)])
def test_chunks_of_jobs_leave_requests_their_share_of_the_time(share: float, pause_s: float) -> None:
    jobs, chunks, requests = JobsShare(share), Share(), Share()
    assert jobs.pause_s("chunks", chunks, 0.2) == 0.0, "there are no requests"
    assert jobs.pause_s("requests", requests, 0.2) == 0.0
    with jobs.at_work("chunks"):
        assert jobs.pause_s("chunks", chunks, 0.2) == pytest.approx(pause_s)
    assert jobs.pause_s("chunks", chunks, 0.2) == 0.0, "there were none in the meantime"
    assert jobs.pause_s("jobs", Share(), 0.2) == 0.0


def test_chunks_of_several_tenants_share_their_share() -> None:
    jobs, first, second = JobsShare(0.5), Share(), Share()
    jobs.pause_s("requests", Share(), 0.1)
    with jobs.at_work("chunks"), jobs.at_work("chunks"), jobs.at_work("requests"):
        assert jobs.pause_s("chunks", first, 0.1) == pytest.approx(0.3)
        assert jobs.pause_s("chunks", second, 0.1) == pytest.approx(0.3), "requests arrived for each of them"
