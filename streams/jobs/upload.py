"""Sends the messages of one job to its owner, this worker: many concurrently, within a limit."""

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
"""How long the owner may take to process a message that the broker has acknowledged."""
WINDOW = 32
"""Maximum messages that the owner has not processed yet; further sends wait."""

Produce = Callable[[bytes, Codec], Awaitable[asyncio.Future[RecordMetadata]]]
"""Passes a message to the producer once it has room."""


class JobMessageSender:
    """Sends messages in order without waiting for each to be processed.

    Raises the rejection of an earlier message once it is known, or `RetryLaterError` if it cannot be known.
    """

    def __init__(self, handled: MessageOutcomes, produce: Produce) -> None:
        self._handled = handled
        self._produce = produce
        self._on_their_way: deque[asyncio.Task[ModelServingError | None]] = deque()

    async def send(self, value: bytes, codec: Codec) -> None:
        """Sends a message; waits while too many are unprocessed."""
        while len(self._on_their_way) >= WINDOW or (self._on_their_way and self._on_their_way[0].done()):
            await self._first_taken()
        try:
            sent = await self._produce(value, codec)
        except PUBLISH_ERRORS as error:
            raise _not_sent(error) from error
        self._on_their_way.append(asyncio.create_task(self._taken(sent)))

    async def all_taken(self) -> None:
        """Waits until the owner has processed every message that was sent."""
        while self._on_their_way:
            await self._first_taken()

    async def forget(self) -> None:
        """Stops waiting for messages that are in flight."""
        left = [*self._on_their_way]
        self._on_their_way.clear()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _first_taken(self) -> None:
        # It stays in the queue until it is done, so that `forget` finds it.
        rejection = await self._on_their_way[0]
        del self._on_their_way[0]
        if rejection is not None:
            raise rejection

    async def _taken(self, sent: asyncio.Future[RecordMetadata]) -> ModelServingError | None:
        try:
            offset = (await sent).offset
        except PUBLISH_ERRORS as error:
            raise _not_sent(error) from error
        try:
            return await asyncio.wait_for(self._handled.wait(offset), HANDLED_WITHIN_S)
        except PartitionRevokedError:
            raise RetryLaterError("the job has moved to another worker: send the same messages again") from None
        except TimeoutError:
            raise RetryLaterError("no worker has processed the message yet; check the job's status") from None


def _not_sent(error: BaseException) -> RetryLaterError:
    return RetryLaterError(f"the message cannot be sent: {describe(error)}; retry later")
