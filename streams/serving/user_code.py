"""User-defined predictor classes in a worker: one instance of each per tenant, on the models that the worker serves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from inferd.schemas.errors import InvalidIdError, ModelNotReadyError, ServerError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Alias, AliasTarget, Manifest, check_model_name
from inferd.schemas.requests import ModelReference
from inferd.streams.inference import Ask, AskRows, ModelCatalog, ServedModel, own_version
from inferd.streams.serving.batch_predictor import BatchPredictor
from inferd.streams.serving.model_manager import ModelManager
from inferd.streams.serving.realtime_predictor import RealtimePredictor
from inferd.streams.serving.row_outcomes import row_outcomes

ProcessBatch = Callable[[str, Sequence[Any]], list[Any]]
"""(model id, rows) -> for each row its prediction or a `ModelServingError`."""
Load = Callable[[str, ModelReference, bytes], None]
"""(tenant, reference, routing key): returns once the version is loaded, or cannot be loaded."""
VERSION_MAX = 999_999_999
_READ_ONLY = "the models of a worker are deployed through Kafka: use `inferd models` or PUT /models/{name}"


class WorkerModels(ModelManager):
    """The models that a worker serves to one tenant, with the read-only part of `ModelManager`."""

    def __init__(self, tenant_id: str, user_code: UserCode, limits: Limits) -> None:
        super().__init__(Path(), tenant_id, limits=limits)
        self._user_code = user_code

    @property
    def catalog(self) -> ModelCatalog:
        """The worker's catalog; `ModelNotReadyError` before the worker has read its models."""
        return self._user_code.catalog(self.tenant_id)

    def for_tenant(self, tenant_id: str) -> ModelManager:
        """The models of another tenant; `ServerError` if the worker does not serve it."""
        return self._user_code.models(tenant_id)

    def load(self, model_id: str, *, routing_key: bytes = b"") -> ServedModel:
        """Like `ModelManager.load`; waits for a version that is not loaded (`INFERD_MODELS_BYTES_MAX`)."""
        self._user_code.load(self.tenant_id, ModelReference.parse(model_id), routing_key)
        return super().load(model_id, routing_key=routing_key)

    def register(
        self, model_id: str, path: str | Path | bytes, *, alias: str | None = None, trial: bool = True, **manifest: Any
    ) -> Manifest:
        """Not supported: `ServerError`."""
        _reject()

    def set_alias(
        self,
        model_id: str,
        alias: str,
        target: int | AliasTarget,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
    ) -> Alias:
        """Not supported: `ServerError`."""
        _reject()

    def rollback_alias(
        self, model_id: str, alias: str, *, revision: int | None = None, changed_by: str | None = None
    ) -> Alias:
        """Not supported: `ServerError`."""
        _reject()

    def promote_alias(
        self, model_id: str, alias: str, to: str, *, revision: int | None = None, changed_by: str | None = None
    ) -> Alias:
        """Not supported: `ServerError`."""
        _reject()

    def remove(self, model_id: str, *, move_aliases_to: int | None = None) -> list[str]:
        """Not supported: `ServerError`."""
        _reject()


class UserCode:
    """The instances of user-defined classes in a worker; empty if none are configured."""

    def __init__(
        self,
        tenants: Collection[str] = (),
        realtime: type[RealtimePredictor] | None = None,
        batch: type[BatchPredictor] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Create an instance of each class for each tenant; exceptions of their constructors are not caught.

        `ServerError` for invalid names or versions in `own_models`.
        """
        self._catalogs: Mapping[str, ModelCatalog] = {}
        self.load: Load = lambda *_: None
        self._models = {tenant: WorkerModels(tenant, self, limits) for tenant in tenants}
        self._realtime = {t: realtime(models, None, t) for t, models in self._models.items()} if realtime else {}
        for predictor in self._realtime.values():
            check_own_models(predictor.own_models)
        self._batch = {t: batch(models, t) for t, models in self._models.items()} if batch else {}

    def follow(self, catalogs: Mapping[str, ModelCatalog], load: Load = lambda *_: None) -> None:
        """Set the worker's catalogs by tenant, and add the models in `own_models` to them.

        `load` waits until the version that a tenant's reference resolves to is loaded.
        """
        self._catalogs, self.load = catalogs, load
        for tenant, predictor in self._realtime.items():
            add_own_models(catalogs[tenant], predictor)

    def catalog(self, tenant: str) -> ModelCatalog:
        """The worker's catalog of a tenant; `ModelNotReadyError` before the worker has read its models."""
        if tenant not in self._catalogs:
            raise ModelNotReadyError("the worker is starting: it has not read its models yet")
        return self._catalogs[tenant]

    def models(self, tenant: str) -> WorkerModels:
        """The models of a tenant for user-defined classes; `ServerError` if the worker does not serve the tenant."""
        if tenant not in self._models:
            raise ServerError(f"tenant {tenant!r} is not served by this worker: see INFERD_TENANTS")
        return self._models[tenant]

    def realtime_predictor(self, tenant: str) -> RealtimePredictor | None:
        """The user-defined realtime predictor of a tenant."""
        return self._realtime.get(tenant)

    def batch_predictor(self, tenant: str) -> BatchPredictor | None:
        """The user-defined batch predictor of a tenant."""
        return self._batch.get(tenant)

    def ask(self, tenant: str) -> Ask | None:
        """The function that answers each request of a tenant instead of the model; None if the model does."""
        predictor = self.realtime_predictor(tenant)
        return None if predictor is None else predictor.answer

    def ask_rows(self, tenant: str) -> AskRows | None:
        """The function that answers the rows of several requests of a tenant in one call; None if there is none."""
        predictor = self.realtime_predictor(tenant)
        return predictor.rows_answered if predictor is not None and predictor.takes_batches else None

    def process_batch(self, tenant: str) -> ProcessBatch | None:
        """The function that scores the chunks of a tenant's jobs instead of the model; None if the model does."""
        predictor = self.batch_predictor(tenant)
        if predictor is None:
            return None
        process = predictor.process_batch
        return lambda model_id, rows: row_outcomes(lambda part: process(model_id, part), rows)


def add_own_models(catalog: ModelCatalog, predictor: RealtimePredictor) -> None:
    """Add the predictor's `own_models` to the catalog; errors as `check_own_models`."""
    check_own_models(predictor.own_models)
    for name, version in predictor.own_models.items():
        catalog.put_own(own_version(name, version, predictor.rows_answered))


def check_own_models(own_models: Mapping[str, int]) -> None:
    """`ServerError` for an invalid model name or version."""
    for name, version in own_models.items():
        try:
            check_model_name(name)
        except InvalidIdError as error:
            raise ServerError(f"own_models: {error.message}") from None
        if type(version) is not int or not 1 <= version <= VERSION_MAX:
            raise ServerError(f"own_models[{name!r}] is {version!r}: expected a version, 1 to {VERSION_MAX}")


def _reject() -> NoReturn:
    raise ServerError(_READ_ONLY)
