"""Reading in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from inferd.daemon.cli.read_ahead import read_ahead


@pytest.mark.parametrize("ahead", [1, 3, 4_096])
async def test_items_are_in_order(ahead: int) -> None:
    assert [item async for item in read_ahead(iter(range(5_000)), ahead)] == list(range(5_000))


async def test_no_items() -> None:
    assert [item async for item in read_ahead(iter(list[int]()))] == []


async def test_an_item_is_yielded_before_the_next_one_is_read() -> None:
    released = threading.Semaphore(1)

    def slow() -> Iterator[int]:
        for number in range(20):
            assert released.acquire(timeout=20)
            yield number

    async with asyncio.timeout(20):
        got: list[int] = []
        async for item in read_ahead(slow()):
            got.append(item)
            released.release()
    assert got == list(range(20))


async def test_reading_ahead_is_bounded() -> None:
    read = 0

    def counted() -> Iterator[int]:
        nonlocal read
        for number in range(1_000):
            read = number + 1
            yield number

    taken = 0
    async for _ in read_ahead(counted(), 10):
        taken += 1
        # Taken, buffered, and the one that waits for a free slot.
        assert read <= taken + 10 + 1
    assert taken == 1_000


async def test_an_error_is_raised_after_the_items_before_it() -> None:
    def torn() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = read_ahead(torn())
    assert await anext(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        await anext(items)
