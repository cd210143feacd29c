"""Pipelining: sends items while the results of earlier ones are pending. It does no I/O."""

from __future__ import annotations

import asyncio
from asyncio import Queue
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Sent = TypeVar("Sent")

# Items that are sent before the event loop runs again, so that the producer can transmit them.
TURN_ITEMS = 64


class _End:
    """The end of the queue; `error` is the reason, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


async def sent_ahead(
    send: Callable[[Item], Awaitable[Sent]],
    items: Iterable[Item] | AsyncIterable[Item],
    window: int,
    abandon: Callable[[Sent], None],
) -> AsyncGenerator[Sent, None]:
    """Yield the return value of `send` for each item, in order; about `window` items are sent ahead.

    An error of `items` or `send` is raised after everything sent before it has been yielded. If the generator is
    closed, `abandon` is called with what was sent but not yielded.
    """
    queue: Queue[Sent | _End] = Queue(maxsize=window)
    feeding = asyncio.create_task(_feed(send, items, queue))
    try:
        while not isinstance(sent := await queue.get(), _End):
            yield sent
        if sent.error is not None:
            raise sent.error
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        while not queue.empty():
            if not isinstance(left := queue.get_nowait(), _End):
                abandon(left)


async def _feed(
    send: Callable[[Item], Awaitable[Sent]],
    items: Iterable[Item] | AsyncIterable[Item],
    queue: Queue[Sent | _End],
) -> None:
    try:
        async for item in _with_turns(items):
            await queue.put(await send(item))
    except Exception as error:  # noqa: BLE001  (raised by `sent_ahead`)
        await queue.put(_End(error))
    else:
        await queue.put(_End())


async def _with_turns(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for number, item in enumerate(items):
        if number % TURN_ITEMS == TURN_ITEMS - 1:
            await asyncio.sleep(0)
        yield item
