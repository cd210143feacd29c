"""Long work leaves the event loop free at regular intervals."""

from __future__ import annotations

import asyncio
import itertools

from inferd.streams.tasks.slices import PART, SLICE_S, Slices


async def test_the_event_loop_runs_after_each_slice() -> None:
    clock = itertools.count(0.0, SLICE_S * 0.4)
    used, seen = list[int](), list[int]()
    slices = Slices(lambda: next(clock))
    running = True

    async def watch() -> None:
        while running:
            seen.append(len(used))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await slices.run(range(10 * PART), used.extend)
    running = False
    await watching
    assert used == [*range(10 * PART)]
    assert {3 * PART, 6 * PART, 9 * PART} <= {*seen}


async def test_only_one_piece_of_work_runs_at_a_time() -> None:
    clock = itertools.count(0.0, 2 * SLICE_S)
    used = list[str]()
    slices = Slices(lambda: next(clock))
    await asyncio.gather(*(slices.run([name] * 3 * PART, lambda part: used.append(part[0])) for name in "abc"))
    assert [name for name, _ in itertools.groupby(used)] == ["a", "b", "c"]


async def test_a_cancelled_piece_lets_the_next_one_run() -> None:
    slices, used = Slices(lambda: next(clock)), list[int]()
    clock = itertools.count(0.0, 2 * SLICE_S)
    endless = asyncio.create_task(slices.run(itertools.count(), lambda _: None))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(slices.run([1], used.extend))
    await asyncio.sleep(0)
    endless.cancel()
    await waiting
    assert used == [1]
