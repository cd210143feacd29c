"""Loads the classes named by `--server`, `--batch-predictor` and `--realtime-predictor`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from inferd.daemon.errors import error_text
from inferd.daemon.settings import Settings, SettingsError
from inferd.streams.named_class import find_class

if TYPE_CHECKING:
    from inferd.daemon.http.local import ModelServer
    from inferd.daemon.http.user_routes import UserRoutes
    from inferd.streams.serving import UserCode

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CustomClasses:
    """The loaded classes: routes for the worker's HTTP port, and predictors for its streams."""

    routes: UserRoutes | None = None
    custom: UserCode | None = None


@dataclass(slots=True)
class _Loader:
    """Loads classes, and records a problem for each that cannot be used."""

    problems: list[str] = field(default_factory=list)

    def load(self, variable: str, path: str | None, base: type) -> Any:
        """The subclass of `base` that `path` names; None without a path, or if there is a problem."""
        if path is None:
            return None
        try:
            found = find_class(path)
        except Exception as error:  # a user's module may raise anything at import
            log.exception("custom_class_failed", setting=variable, path=path)
            self.problems.append(f"{variable}={path} cannot be loaded: {error_text(error)}")
            return None
        if not inspect.isclass(found) or not issubclass(found, base):
            self.problems.append(f"{variable}={path} is not a subclass of inferd.{base.__name__}")
            return None
        return found

    def make(self, variable: str, make: Any) -> Any:
        """The result of `make`; None and a recorded problem if it raises."""
        try:
            return make()
        except Exception as error:  # a user's constructor may raise anything
            log.exception("custom_class_failed", setting=variable)
            self.problems.append(f"{variable}: its class cannot be constructed: {error_text(error)}")
            return None


def load_custom(settings: Settings) -> CustomClasses:
    """The classes that the settings name; empty if they name none.

    The working directory is on the import path. Raises `SettingsError` with one line for each class that cannot be
    used.
    """
    if settings.server is settings.batch_predictor is settings.realtime_predictor is None:
        return CustomClasses()
    from inferd.daemon.http.local import ModelServer
    from inferd.streams.serving import BatchPredictor, RealtimePredictor, UserCode

    loader, limits = _Loader(), settings.streams().limits
    server = loader.load("INFERD_SERVER", settings.server, ModelServer)
    batch = loader.load("INFERD_BATCH_PREDICTOR", settings.batch_predictor, BatchPredictor)
    realtime = loader.load("INFERD_REALTIME_PREDICTOR", settings.realtime_predictor, RealtimePredictor)
    custom = loader.make("INFERD_…_PREDICTOR", lambda: UserCode(settings.tenants, realtime, batch, limits))
    routes = None
    if server is not None and custom is not None:
        routes = loader.make("INFERD_SERVER", lambda: _routes_of(server, settings, custom))
    if loader.problems:
        raise SettingsError(loader.problems)
    return CustomClasses(routes, custom)


def _routes_of(server: type[ModelServer], settings: Settings, custom: UserCode) -> UserRoutes:
    """The routes of a server of the first tenant, with that tenant's predictors unless it has set its own."""
    from inferd.streams.serving import BatchPredictor, RealtimePredictor

    tenant = settings.tenants[0]
    made = server(custom.models(tenant), settings.http_host, settings.http_port, tenant)
    realtime, batch = custom.realtime_predictor(tenant), custom.batch_predictor(tenant)
    if realtime is not None and type(made.realtime_predictor) is RealtimePredictor:
        made.realtime_predictor = realtime
    if batch is not None and type(made.batch_predictor) is BatchPredictor:
        made.batch_predictor = batch
    return made.app
