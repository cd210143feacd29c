"""Backend of the routes for operators in a worker: reads and writes the tenant's topics through a client."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

from inferd.daemon.http.routes import PauseOverview, RedriveOptions
from inferd.daemon.http.worker.cluster_models import ClusterModels
from inferd.schemas.audit import Action, AuditRecord
from inferd.schemas.models import Pause, Paused, PauseKey
from inferd.schemas.redrive import RedriveReport


class ClusterOperating:
    """`Operating` of a worker's tenants, through the clients of `ClusterModels`."""

    def __init__(self, models: ClusterModels) -> None:
        self._models = models

    async def note(self, tenant: str, action: Action, subject: str) -> None:
        """See `Operating`."""
        async with self._models.client(tenant) as client:
            await client.audit.note(action, subject)

    async def audit(self, tenant: str, since_s: int, limit: int) -> list[AuditRecord]:
        """See `Operating`."""
        since = datetime.now(UTC) - timedelta(seconds=since_s)
        newest: deque[AuditRecord] = deque(maxlen=limit)
        async with self._models.client(tenant) as client:
            async for record in client.audit_records(since=since):
                newest.append(record)
        return list(reversed(newest))

    async def pauses(self, tenant: str) -> list[PauseOverview]:
        """See `Operating`."""
        async with self._models.client(tenant) as client:
            return [_overview(key, pause) for key, pause in (await client.pauses()).items()]

    async def pause(self, tenant: str, kind: Paused, name: str, reason: str | None) -> PauseOverview:
        """See `Operating`."""
        async with self._models.client(tenant) as client:
            return _overview(PauseKey(kind, name), await client.pause(**_named(kind, name), reason=reason))

    async def resume(self, tenant: str, kind: Paused, name: str) -> bool:
        """See `Operating`."""
        async with self._models.client(tenant) as client:
            return await client.resume(**_named(kind, name))

    async def redrive(self, tenant: str, options: RedriveOptions) -> RedriveReport:
        """See `Operating`."""
        since = None if options.since_s is None else datetime.now(UTC) - timedelta(seconds=options.since_s)
        async with self._models.client(tenant) as client:
            return await client.redrive_dead_letters(
                code=options.code, since=since, limit=options.limit, route=options.route, dry_run=options.dry_run
            )


def _named(kind: Paused, name: str) -> dict[str, Any]:
    """The argument of the client's methods that names it."""
    return {kind: name}


def _overview(key: PauseKey, pause: Pause) -> PauseOverview:
    return PauseOverview(kind=key.kind, name=key.name, at=pause.at, by=pause.by, reason=pause.reason)
