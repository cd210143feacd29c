"""Messages of one job on their way to its owner, which is this worker: many at once, and never too many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from aiokafka.structs import RecordMetadata

from inferd.schemas.codecs import Codec
from inferd.schemas.errors import ModelServingError
from inferd.streams.jobs.errors import RetryLaterError
from inferd.streams.jobs.job_store import MessageOutcomes, PartitionRevokedError
from inferd.streams.lane import PUBLISH_ERRORS, describe

HANDLED_WITHIN_S = 20.0
"""How long the owner may take to look at a message, once the broker has it."""
WINDOW = 32
"""Messages that the owner has not looked at yet: who sends more waits for it."""

Produce = Callable[[bytes, Codec], Awaitable[asyncio.Future[RecordMetadata]]]
"""Hands a message to the producer, as soon as that has room for it."""


class JobMessageSender:
    """Sends messages one after the other, without waiting for each to be taken.

    Raises the refusal of an earlier message as soon as it is known, and `RetryLaterError` where it will not be known.
    """

    def __init__(self, handled: MessageOutcomes, produce: Produce) -> None:
        self._handled = handled
        self._produce = produce
        self._on_their_way: deque[asyncio.Task[ModelServingError | None]] = deque()

    async def send(self, value: bytes, codec: Codec) -> None:
        """Sends a message; waits where too many are on their way."""
        while len(self._on_their_way) >= WINDOW or (self._on_their_way and self._on_their_way[0].done()):
            await self._first_taken()
        try:
            sent = await self._produce(value, codec)
        except PUBLISH_ERRORS as error:
            raise _not_sent(error) from error
        self._on_their_way.append(asyncio.create_task(self._taken(sent)))

    async def all_taken(self) -> None:
        """Waits until the owner has looked at everything that was sent."""
        while self._on_their_way:
            await self._first_taken()

    async def forget(self) -> None:
        """Waits no longer for what is on its way."""
        left = [*self._on_their_way]
        self._on_their_way.clear()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _first_taken(self) -> None:
        # It stays in the queue until it is done, for `forget` to find it.
        refusal = await self._on_their_way[0]
        del self._on_their_way[0]
        if refusal is not None:
            raise refusal

    async def _taken(self, sent: asyncio.Future[RecordMetadata]) -> ModelServingError | None:
        try:
            offset = (await sent).offset
        except PUBLISH_ERRORS as error:
            raise _not_sent(error) from error
        try:
            return await asyncio.wait_for(self._handled.wait(offset), HANDLED_WITHIN_S)
        except PartitionRevokedError:
            raise RetryLaterError("the job went to another worker meanwhile: send the same again") from None
        except TimeoutError:
            raise RetryLaterError("no worker has taken the message yet; ask for the job's status") from None


def _not_sent(error: BaseException) -> RetryLaterError:
    return RetryLaterError(f"the message cannot be sent: {describe(error)}; ask again later")
