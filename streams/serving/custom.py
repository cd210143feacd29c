"""The users' own classes in a worker: one object of each for every tenant, over the models that the worker serves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from inferd.schemas.errors import InvalidIdError, ModelNotReadyError, ServerError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Alias, Manifest, check_model_name
from inferd.streams.inference import Ask, AskRows, ModelCatalog, own_version
from inferd.streams.serving.batch_predictor import BatchPredictor
from inferd.streams.serving.model_manager import ModelManager
from inferd.streams.serving.realtime_predictor import RealtimePredictor
from inferd.streams.serving.row_outcomes import row_outcomes

ProcessBatch = Callable[[str, Sequence[Any]], list[Any]]
"""(model id, rows) -> for each row its prediction, or the `ModelServingError` that it got."""
VERSION_MAX = 999_999_999
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
        """Makes an object of each class for each tenant, and raises whatever they do.

        `ServerError` for names or versions in `own_models` that are none.
        """
        self._catalogs: Mapping[str, ModelCatalog] = {}
        self._models = {tenant: WorkerModels(tenant, self, limits) for tenant in tenants}
        self._realtime = {t: realtime(models, None, t) for t, models in self._models.items()} if realtime else {}
        for predictor in self._realtime.values():
            check_own_models(predictor.own_models)
        self._batch = {t: batch(models, t) for t, models in self._models.items()} if batch else {}

    def follow(self, catalogs: Mapping[str, ModelCatalog]) -> None:
        """The worker's models, by tenant, are these from now on; the users' own names are added to them."""
        self._catalogs = catalogs
        for tenant, predictor in self._realtime.items():
            add_own_models(catalogs[tenant], predictor)

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

    def ask_rows(self, tenant: str) -> AskRows | None:
        """What answers the rows of a tenant's requests for predictions in one call; None where none does."""
        predictor = self.realtime_predictor(tenant)
        return predictor.rows_answered if predictor is not None and predictor.takes_batches else None

    def process_batch(self, tenant: str) -> ProcessBatch | None:
        """What scores the chunks of a tenant's jobs in place of its model; None where the model does."""
        predictor = self.batch_predictor(tenant)
        if predictor is None:
            return None
        process = predictor.process_batch
        return lambda model_id, rows: row_outcomes(lambda part: process(model_id, part), rows)


def add_own_models(catalog: ModelCatalog, predictor: RealtimePredictor) -> None:
    """Adds the names that a predictor answers without a deployed model; raises what `check_own_models` does."""
    check_own_models(predictor.own_models)
    for name, version in predictor.own_models.items():
        catalog.put_own(own_version(name, version, predictor.rows_answered))


def check_own_models(own_models: Mapping[str, int]) -> None:
    """`ServerError` for a name that no model can have, and for a version that is none."""
    for name, version in own_models.items():
        try:
            check_model_name(name)
        except InvalidIdError as error:
            raise ServerError(f"own_models: {error.message}") from None
        if type(version) is not int or not 1 <= version <= VERSION_MAX:
            raise ServerError(f"own_models[{name!r}] is {version!r}: expected a version, 1 to {VERSION_MAX}")


def _refuse() -> NoReturn:
    raise ServerError(_ELSEWHERE)
