"""The application that all routes are added to: errors as JSON, tokens, bounds. It serves nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from inferd.daemon.http.core.access import ACCESS, Access, guarded
from inferd.daemon.http.core.admission import ADMISSION, Admission, admitted
from inferd.daemon.http.core.bodies import BYTES_PER_S_MIN, BodyLimits
from inferd.daemon.http.core.errors import errors_as_json
from inferd.daemon.http.core.peers import PEERS
from inferd.daemon.http.core.traffic import TRAFFIC, Traffic, counted
from inferd.schemas.limits import DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class AppLimits:
    """Bounds of requests."""

    body_bytes_max: int = DEFAULT_LIMITS.message_bytes_max
    upload_bytes_max: int = DEFAULT_LIMITS.artifact_bytes_max
    """Bytes of a model file."""
    read_timeout_s: float = 10.0
    """How long a client may keep the server waiting for a body, beside the time that its size allows."""
    read_bytes_per_s_min: int = BYTES_PER_S_MIN
    """How fast a body must come once that time is over."""
    timeout_s: float = 30.0
    """How long a prediction may take."""

    @property
    def body(self) -> BodyLimits:
        """Of a prediction, a job in one body, an alias, a body of an own route."""
        return self.of_bytes(self.body_bytes_max)

    @property
    def upload(self) -> BodyLimits:
        """Of a model file."""
        return self.of_bytes(self.upload_bytes_max)

    def of_bytes(self, bytes_max: int) -> BodyLimits:
        """Of a body of at most `bytes_max`."""
        return BodyLimits(bytes_max, self.read_timeout_s, self.read_bytes_per_s_min)


DEFAULT_APP_LIMITS = AppLimits()
LIMITS = web.AppKey("limits", AppLimits)


def create_app(
    *, access: Access | None = None, admission: Admission | None = None, limits: AppLimits = DEFAULT_APP_LIMITS
) -> web.Application:
    """An application without routes; by default of the tenant `default`, for anybody, 256 requests at once."""
    app = web.Application(
        middlewares=[counted, errors_as_json, guarded, admitted], client_max_size=limits.body_bytes_max
    )
    app[TRAFFIC] = Traffic()
    app[ACCESS] = access or Access()
    app[PEERS] = app[ACCESS].peers
    app[ADMISSION] = admission or Admission()
    app[LIMITS] = limits
    return app
