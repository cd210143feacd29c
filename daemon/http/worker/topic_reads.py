"""Bounds reads of topics for HTTP requests: each has a consumer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError

from inferd.daemon.http.core import UnavailableError
from inferd.schemas.errors import ServerError

T = TypeVar("T")
READ_WITHIN_S, CONCURRENT_MAX = 20.0, 2


class TopicReads:
    """Few at a time, each within a time; failures of the broker are `UnavailableError`."""

    def __init__(self, what: str, were: str, failures: tuple[type[Exception], ...] = (KafkaError, ServerError)) -> None:
        """`what` is read, and `were` or was not, for error messages; `failures`: what else than time-outs the broker
        causes."""
        self._what, self._were, self._failures = what, were, failures
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)

    async def run(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns."""
        try:
            async with asyncio.timeout(READ_WITHIN_S), self._slots:
                return await read()
        except TimeoutError:
            raise UnavailableError(f"{self._what} {self._were} not read within {READ_WITHIN_S:g} s; retry") from None
        except self._failures as error:
            raise UnavailableError(f"reading {self._what}: {error}") from error
