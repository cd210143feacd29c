"""Pipelined sending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from inferd.predictions.pipeline import sent_ahead


class Sender:
    """Sends numbers; records the sent and the abandoned ones."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.abandoned: list[int] = []

    async def send(self, item: int) -> int:
        self.sent.append(item)
        return item

    def run(self, items: list[int] | AsyncIterator[int] | range, window: int) -> AsyncIterator[int]:
        return sent_ahead(self.send, items, window, self.abandoned.append)


@pytest.mark.parametrize("window", [1, 2, 7, 1_000])
async def test_items_are_in_order(window: int) -> None:
    sender = Sender()
    assert [item async for item in sender.run(range(300), window)] == list(range(300))


async def test_sending_is_limited_by_the_window() -> None:
    sender = Sender()
    results = sender.run(range(100), 5)
    assert await anext(results) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(sender.sent) == 5 + 2  # taken, in the window, and waiting for the window
    async for _ in results:
        pass


async def test_no_items() -> None:
    assert [item async for item in Sender().run([], 5)] == []


async def test_unconsumed_items_are_abandoned() -> None:
    sender = Sender()
    async with aclosing(sender.run(range(1_000), 10)) as results:  # type: ignore[type-var]
        await anext(results)
    assert sender.abandoned == sender.sent[1 : 1 + len(sender.abandoned)]
    assert len(sender.sent) < 20


async def test_an_error_is_raised_after_earlier_results() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError("torn")

    results = Sender().run(items(), 5)
    assert [await anext(results), await anext(results)] == [1, 2]
    with pytest.raises(ValueError, match="torn"):
        await anext(results)


async def test_an_error_of_sending_is_raised() -> None:
    async def send(item: int) -> int:
        if item == 2:
            raise ConnectionError("gone")
        return item

    results = sent_ahead(send, [1, 2, 3], 5, lambda _: None)
    assert await anext(results) == 1
    with pytest.raises(ConnectionError, match="gone"):
        await anext(results)
