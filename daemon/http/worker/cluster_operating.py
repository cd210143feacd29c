"""Backend of the routes for operators in a worker: reads and writes the tenant's topics through a client."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta

from inferd.daemon.http.routes import RedriveOptions
from inferd.daemon.http.worker.cluster_models import ClusterModels
from inferd.schemas.audit import Action, AuditRecord
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

    async def redrive(self, tenant: str, options: RedriveOptions) -> RedriveReport:
        """See `Operating`."""
        since = None if options.since_s is None else datetime.now(UTC) - timedelta(seconds=options.since_s)
        async with self._models.client(tenant) as client:
            return await client.redrive_dead_letters(
                code=options.code, since=since, limit=options.limit, route=options.route, dry_run=options.dry_run
            )
