"""Backend of the routes of rollouts in a worker: writes and reads the tenant's topics through a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from inferd.daemon.http.core import UnavailableError
from inferd.daemon.http.routes import RolloutBody, Steering
from inferd.daemon.http.worker.cluster_models import ClusterModels
from inferd.schemas.rollouts import RolloutStatus

if TYPE_CHECKING:
    from inferd.rollouts import Rollouts

ANSWER_WITHIN_S = 15.0
"""How long the owner may take: longer than a takeover."""


class ClusterRollouts:
    """`Rollouts` of a worker's tenants, through the clients of `ClusterModels`."""

    def __init__(self, models: ClusterModels) -> None:
        self._models = models

    async def list_rollouts(self, tenant: str) -> Mapping[str, RolloutStatus]:
        """See `Rollouts`."""
        async with self._rollouts(tenant) as rollouts:
            return await rollouts.list(timeout_s=ANSWER_WITHIN_S)

    async def show_rollout(self, tenant: str, model_id: str) -> RolloutStatus:
        """See `Rollouts`."""
        async with self._rollouts(tenant) as rollouts:
            return await rollouts.status(model_id, timeout_s=ANSWER_WITHIN_S)

    async def start_rollout(self, tenant: str, model_id: str, body: RolloutBody, changed_by: str) -> RolloutStatus:
        """See `Rollouts`."""
        async with self._rollouts(tenant) as rollouts:
            return await rollouts.start(
                model_id, to=body.to, steps=body.steps, guards=body.guards, alias=body.alias,
                requests_min=body.requests_min, guard_requests_min=body.guard_requests_min, revision=body.revision,
                changed_by=changed_by, timeout_s=ANSWER_WITHIN_S,
            )  # fmt: skip

    async def steer_rollout(self, tenant: str, model_id: str, action: Steering, changed_by: str) -> RolloutStatus:
        """See `Rollouts`."""
        async with self._rollouts(tenant) as rollouts:
            send = {
                "pause": rollouts.pause, "resume": rollouts.resume,
                "promote": rollouts.promote, "abort": rollouts.abort,
            }[action]  # fmt: skip
            return await send(model_id, changed_by=changed_by, timeout_s=ANSWER_WITHIN_S)

    @asynccontextmanager
    async def _rollouts(self, tenant: str) -> AsyncIterator[Rollouts]:
        from inferd.errors import ResultTimeoutError

        async with self._models.client(tenant) as client:
            try:
                yield client.rollouts
            except ResultTimeoutError as error:
                raise UnavailableError(error.message) from error
