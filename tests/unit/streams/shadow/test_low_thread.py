"""A thread whose calls may raise, hang or be abandoned."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from inferd.streams.shadow.low_thread import ABANDONED_MAX, NICE, NICE_MAX, SWITCH_INTERVAL_S, LowThread

SOON_S = 0.25
LONG_S = 30.0


class Held:
    """Something that a call uses."""


async def test_a_call_returns_or_raises_to_its_caller() -> None:
    thread = LowThread("t")
    assert await thread.call(lambda: 3, LONG_S) == 3
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 / 0, LONG_S)
    assert await thread.call(threading.current_thread, LONG_S) is await thread.call(threading.current_thread, LONG_S)
    thread.close()


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads")
async def test_the_thread_has_a_lower_priority_and_the_others_keep_theirs() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = LowThread("t")
    there = await thread.call(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), LONG_S)
    assert there == min(NICE_MAX, before + NICE)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    thread.close()


async def test_others_get_the_interpreter_lock_sooner_during_a_call() -> None:
    usual_s, thread = sys.getswitchinterval(), LowThread("t")
    assert await thread.call(sys.getswitchinterval, LONG_S) == pytest.approx(SWITCH_INTERVAL_S)
    assert sys.getswitchinterval() == usual_s
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 / 0, LONG_S)
    assert sys.getswitchinterval() == usual_s
    thread.close()


async def test_what_raising_calls_used_is_released_without_the_garbage_collector() -> None:
    thread = LowThread("t")
    held = Held()
    alive = weakref.ref(held)

    def raises(used: Held) -> None:
        raise ValueError(type(used).__name__)

    gc.disable()
    try:
        with suppress(ValueError):
            await thread.call(partial(raises, held), LONG_S)
        del held
        await thread.call(lambda: None, LONG_S)
        assert alive() is None
    finally:
        gc.enable()
        thread.close()


async def test_a_call_that_blocks_is_abandoned_and_later_ones_are_not_delayed() -> None:
    thread, go = LowThread("t"), threading.Event()
    with pytest.raises(TimeoutError):
        await thread.call(go.wait, SOON_S)
    assert await thread.call(lambda: 1, LONG_S) == 1
    go.set()
    thread.close()


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time of threads")
async def test_a_call_that_loops_in_python_is_ended() -> None:
    thread, found = LowThread("t"), list[threading.Thread]()

    def loops() -> Any:
        found.append(threading.current_thread())
        while True:
            pass

    with pytest.raises(TimeoutError):
        await thread.call(loops, LONG_S, cpu_s=SOON_S)
    await asyncio.to_thread(found[0].join, LONG_S)
    assert not found[0].is_alive()
    assert thread.usable
    thread.close()


async def test_a_call_that_waits_takes_no_cpu_time() -> None:
    thread, go = LowThread("t"), threading.Event()
    asyncio.get_running_loop().call_later(4 * SOON_S, go.set)
    assert await thread.call(lambda: go.wait(LONG_S), LONG_S, cpu_s=SOON_S)
    thread.close()


async def test_after_several_hanging_threads_nothing_is_called_until_one_ends() -> None:
    thread, go = LowThread("t"), threading.Event()
    found: list[threading.Thread] = []

    def hangs() -> None:
        found.append(threading.current_thread())
        while not go.is_set():
            try:
                go.wait()
            except BaseException:  # noqa: BLE001  # as a library that cannot be ended
                continue

    for _ in range(ABANDONED_MAX):
        with pytest.raises(TimeoutError):
            await thread.call(hangs, SOON_S)
    states = [thread.usable]
    go.set()
    for each in found:
        await asyncio.to_thread(each.join, LONG_S)
    assert [*states, thread.usable] == [False, True]
    thread.close()


async def test_a_cancelled_caller_does_not_wait() -> None:
    thread, go = LowThread("t"), threading.Event()
    task = asyncio.create_task(thread.call(go.wait, LONG_S))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    thread.close()
