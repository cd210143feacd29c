"""The users' own classes in a worker: one object of each for every tenant, over the models that the worker serves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from schemas.errors import ModelNotReadyError, ServerError
from schemas.limits import DEFAULT_LIMITS, Limits
from schemas.models import Alias, Manifest
from streams.inference.catalog import ModelCatalog
from streams.inference.custom import Ask
from streams.serving.batch_predictor import BatchPredictor
from streams.serving.model_manager import ModelManager
from streams.serving.realtime_predictor import RealtimePredictor
from streams.serving.row_outcomes import row_outcomes

ProcessBatch = Callable[[str, Sequence[Any]], list[Any]]
"""(model id, rows) -> for each row its prediction, or the `ModelServingError` that it got."""
_ELSEWHERE = "models of a worker are on Kafka: `inferd models` and PUT /models/{name} change them"


class WorkerModels(ModelManager):
    """The models that a worker serves to one tenant, with the methods of a script's `ModelManager`."""

    def __init__(self, tenant_id: str, custom: Custom, limits: Limits) -> None:
        super().__init__(Path(), tenant_id, limits=limits)
        self._custom = custom

    @property
    def catalog(self) -> ModelCatalog:
        """The worker's own; `ModelNotReadyError` before it has read any model."""
        return self._custom.catalog(self.tenant_id)

    def for_tenant(self, tenant_id: str) -> ModelManager:
        """The models of another tenant that the worker serves; `ServerError` for any other."""
        return self._custom.models(tenant_id)

    def register(
        self, model_id: str, path: str | Path | bytes, *, alias: str | None = None, trial: bool = True, **manifest: Any
    ) -> Manifest:
        """`ServerError`: a worker reads its models."""
        _refuse()

    def set_alias(self, model_id: str, alias: str, target: int | Alias) -> None:
        """`ServerError`: a worker reads its models."""
        _refuse()

    def remove(self, model_id: str, *, move_aliases_to: int | None = None) -> list[str]:
        """`ServerError`: a worker reads its models."""
        _refuse()


class Custom:
    """What a worker asks of the users' classes; without any, it asks nothing."""

    def __init__(
        self,
        tenants: Collection[str] = (),
        realtime: type[RealtimePredictor] | None = None,
        batch: type[BatchPredictor] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Makes an object of each class for each tenant, and raises whatever they do."""
        self._catalogs: Mapping[str, ModelCatalog] = {}
        self._models = {tenant: WorkerModels(tenant, self, limits) for tenant in tenants}
        self._realtime = {t: realtime(models, None, t) for t, models in self._models.items()} if realtime else {}
        self._batch = {t: batch(models, t) for t, models in self._models.items()} if batch else {}

    def follow(self, catalogs: Mapping[str, ModelCatalog]) -> None:
        """The worker's models, by tenant, are these from now on."""
        self._catalogs = catalogs

    def catalog(self, tenant: str) -> ModelCatalog:
        """The worker's models of a tenant; `ModelNotReadyError` before there are any."""
        if tenant not in self._catalogs:
            raise ModelNotReadyError("the worker is starting: it has not read its models yet")
        return self._catalogs[tenant]

    def models(self, tenant: str) -> WorkerModels:
        """The models of a tenant as users' classes see them; `ServerError` where it is not served."""
        if tenant not in self._models:
            raise ServerError(f"tenant {tenant!r} is not served by this worker: see INFERD_TENANTS")
        return self._models[tenant]

    def realtime_predictor(self, tenant: str) -> RealtimePredictor | None:
        """The users' own predictor of a tenant."""
        return self._realtime.get(tenant)

    def batch_predictor(self, tenant: str) -> BatchPredictor | None:
        """The users' own predictor of batches of a tenant."""
        return self._batch.get(tenant)

    def ask(self, tenant: str) -> Ask | None:
        """What answers each request of a tenant in place of its model; None where the model does."""
        predictor = self.realtime_predictor(tenant)
        return None if predictor is None else predictor.answer

    def process_batch(self, tenant: str) -> ProcessBatch | None:
        """What scores the chunks of a tenant's jobs in place of its model; None where the model does."""
        predictor = self.batch_predictor(tenant)
        if predictor is None:
            return None
        process = predictor.process_batch
        return lambda model_id, rows: row_outcomes(lambda part: process(model_id, part), rows)


def _refuse() -> NoReturn:
    raise ServerError(_ELSEWHERE)
