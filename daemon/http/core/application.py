"""The application that routes are added to: its limits, and middlewares for metrics, errors, tokens and admission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from inferd.daemon.http.core.access import ACCESS, Access, authenticated
from inferd.daemon.http.core.admission import ADMISSION, Admission, admitted
from inferd.daemon.http.core.bodies import BYTES_PER_S_MIN, BodyLimits
from inferd.daemon.http.core.compression import compressed
from inferd.daemon.http.core.errors import errors_as_json
from inferd.daemon.http.core.peers import PEERS
from inferd.daemon.http.core.roles import ROLES_OF, Role, RouteKey
from inferd.daemon.http.core.traffic import TRAFFIC, Traffic, counted
from inferd.schemas.limits import DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class AppLimits:
    """Limits of request bodies and of their processing time."""

    body_bytes_max: int = DEFAULT_LIMITS.message_bytes_max
    upload_bytes_max: int = DEFAULT_LIMITS.artifact_bytes_max
    """Size of a model file."""
    read_timeout_s: float = 10.0
    """Time to receive a body; each `read_bytes_per_s_min` bytes received add a second."""
    read_bytes_per_s_min: int = BYTES_PER_S_MIN
    timeout_s: float = 30.0
    """Time limit of a prediction."""

    @property
    def body(self) -> BodyLimits:
        """Limits of every body but model files and streamed rows."""
        return self.of_bytes(self.body_bytes_max)

    @property
    def upload(self) -> BodyLimits:
        """Limits of a model file."""
        return self.of_bytes(self.upload_bytes_max)

    def of_bytes(self, bytes_max: int) -> BodyLimits:
        """Limits of a body of at most `bytes_max`."""
        return BodyLimits(bytes_max, self.read_timeout_s, self.read_bytes_per_s_min)


DEFAULT_APP_LIMITS = AppLimits()
LIMITS = web.AppKey("limits", AppLimits)


def create_app(
    *,
    access: Access | None = None,
    admission: Admission | None = None,
    limits: AppLimits = DEFAULT_APP_LIMITS,
    roles: Mapping[RouteKey, tuple[Role, ...]] | None = None,
) -> web.Application:
    """An application without routes; by default for the tenant `default`, without tokens, 256 concurrent requests.

    `roles`: the roles that each route accepts; routes without an entry are open only to tokens with all roles.
    """
    app = web.Application(
        middlewares=[counted, compressed, errors_as_json, authenticated, admitted],
        client_max_size=limits.body_bytes_max,
    )
    app[TRAFFIC] = Traffic()
    app[ACCESS] = access or Access()
    app[PEERS] = app[ACCESS].peers
    app[ADMISSION] = admission or Admission()
    app[LIMITS] = limits
    app[ROLES_OF] = dict(roles or {})
    return app
