"""Backend of the routes of dead letters in a worker: reads the tenant's topic, with a consumer for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from inferd.daemon.dead_letter_entries import Entry, details_of, summary_of
from inferd.daemon.http.core import NotFoundError, UnavailableError
from inferd.daemon.settings import Settings
from inferd.schemas.errors import ServerError
from inferd.schemas.topics import TenantTopics

T = TypeVar("T")
READ_MAX = 2_000
"""Records of each partition that are searched for a code."""
READ_WITHIN_S, CONCURRENT_MAX = 20.0, 2


class ClusterDeadLetters:
    """`DeadLetters` of a worker's tenants; few requests read at a time, since each has a consumer of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)

    async def newest(self, tenant: str, last: int, code: str | None) -> Sequence[dict[str, Any]]:
        """See `DeadLetters`."""
        from inferd.daemon.dead_letter_log import read_entries

        async def read() -> list[Entry]:
            return await read_entries(self._settings.connection(), self._topic(tenant), last, code, READ_MAX)

        return [summary_of(entry) for entry in reversed(await self._read(read))]

    async def show(self, tenant: str, partition: int, offset: int) -> dict[str, Any]:
        """See `DeadLetters`."""
        from inferd.daemon.dead_letter_log import NoDeadLetterError, read_entry

        async def read() -> Entry:
            try:
                return await read_entry(self._settings.connection(), self._topic(tenant), partition, offset)
            except NoDeadLetterError as error:
                raise NotFoundError(error.message) from None

        return details_of(await self._read(read))

    def _topic(self, tenant: str) -> str:
        return TenantTopics(self._settings.namespace, tenant).name("dead-letters")

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(READ_WITHIN_S), self._slots:
                return await read()
        except TimeoutError:
            raise UnavailableError(f"the dead letters were not read within {READ_WITHIN_S:g} s; retry") from None
        except (KafkaError, ServerError) as error:
            raise UnavailableError(f"reading the dead letters: {error}") from error
