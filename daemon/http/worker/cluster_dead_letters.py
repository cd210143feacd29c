"""Backend of the routes of dead letters in a worker: reads the tenant's topic, with a consumer for each request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd.daemon.dead_letter_entries import Entry, details_of, summary_of
from inferd.daemon.http.core import NotFoundError
from inferd.daemon.http.worker.topic_reads import TopicReads
from inferd.daemon.settings import Settings
from inferd.schemas.topics import TenantTopics

READ_MAX = 2_000
"""Records of each partition that are searched for a code."""


class ClusterDeadLetters:
    """`DeadLetters` of a worker's tenants; few requests read at a time, since each has a consumer of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reads = TopicReads("the dead letters", "were")

    async def newest(self, tenant: str, last: int, code: str | None) -> Sequence[dict[str, Any]]:
        """See `DeadLetters`."""
        from inferd.daemon.dead_letter_log import read_entries

        async def read() -> list[Entry]:
            return await read_entries(self._settings.connection(), self._topic(tenant), last, code, READ_MAX)

        return [summary_of(entry) for entry in reversed(await self._reads.run(read))]

    async def show(self, tenant: str, partition: int, offset: int) -> dict[str, Any]:
        """See `DeadLetters`."""
        from inferd.daemon.dead_letter_log import NoDeadLetterError, read_entry

        async def read() -> Entry:
            try:
                return await read_entry(self._settings.connection(), self._topic(tenant), partition, offset)
            except NoDeadLetterError as error:
                raise NotFoundError(error.message) from None

        return details_of(await self._reads.run(read))

    def _topic(self, tenant: str) -> str:
        return TenantTopics(self._settings.namespace, tenant).name("dead-letters")
