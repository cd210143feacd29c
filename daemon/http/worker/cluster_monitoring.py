"""Backend of the routes of monitoring in a worker: reads the table of windows through a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from inferd.daemon.http.worker.cluster_models import ClusterModels
from inferd.schemas.capture import CapturedRequest
from inferd.schemas.labels import Label
from inferd.schemas.monitoring import Drift, QualityReport, WindowStats, quality_reports
from inferd.schemas.requests import ModelReference

READ_WITHIN_S = 15.0


class ClusterMonitoring:
    """`Monitoring` of a worker's tenants, through the clients of `ClusterModels`."""

    def __init__(self, models: ClusterModels, group: str) -> None:
        """`group`: the consumer group of the workers."""
        self._models, self._group = models, group

    async def windows(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[WindowStats]:
        """See `Monitoring`."""
        async with self._models.client(tenant) as client:
            return await client.model_windows(
                model_id, version=version, since_s=since_s, group=self._group, timeout_s=READ_WITHIN_S
            )

    async def drift(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[Drift]:
        """See `Monitoring`."""
        async with self._models.client(tenant) as client:
            found = await client.model_drift(
                model_id, version=version, since_s=since_s, group=self._group, timeout_s=READ_WITHIN_S
            )
        return [each.drift for each in found if each.drift is not None]

    async def quality(self, tenant: str, model_id: str, version: int | None, since_s: int) -> list[QualityReport]:
        """See `Monitoring`."""
        return quality_reports(await self.windows(tenant, model_id, version, since_s))

    async def send_labels(self, tenant: str, labels: Sequence[Label]) -> int:
        """See `Monitoring`."""
        async with self._models.client(tenant) as client:
            return await client.send_labels(labels)

    async def captured(
        self, tenant: str, model_id: str, version: int | None, since_s: int
    ) -> AsyncGenerator[CapturedRequest, None]:
        """See `Monitoring`."""
        reference = ModelReference(model_id, version=version)
        since = datetime.now(UTC) - timedelta(seconds=since_s)
        async with (
            self._models.client(tenant) as client,
            aclosing(client.captured(str(reference), since=since)) as found,
        ):
            async for each in found:
                yield each
