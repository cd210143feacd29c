"""Sending ahead: items go out while the answers to earlier ones are still on their way. No I/O of its own."""

from __future__ import annotations

import asyncio
from asyncio import Queue
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Sent = TypeVar("Sent")

# How many items may go out before the event loop gets its turn to put them on the wire.
TURN_ITEMS = 64


class _End:
    """Nothing more comes, because of `error` if there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


async def sent_ahead(
    send: Callable[[Item], Awaitable[Sent]],
    items: Iterable[Item] | AsyncIterable[Item],
    window: int,
    abandon: Callable[[Sent], None],
) -> AsyncGenerator[Sent, None]:
    """What `send` gave for each item, in order; about `window` items are sent ahead of what is yielded.

    An error of `items` or of `send` is raised after everything that was sent before it has been yielded. What is not
    taken because the generator is closed is abandoned.
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
    except Exception as error:  # noqa: BLE001  (raised where the items are taken)
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
