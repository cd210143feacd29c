"""Composes the worker's HTTP application from its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from inferd.daemon.application import application_of
from inferd.daemon.http.core import (
    Access,
    Admission,
    AppLimits,
    HttpServer,
    Listener,
    Peers,
    TokensFile,
    add_peer,
    allowed_hosts_of,
    create_app,
    peer_context,
    read_peer_secret,
    server_context,
)
from inferd.daemon.http.routes import (
    ROLES_OF_OPERATIONS,
    Forwarding,
    Models,
    Monitoring,
    Operating,
    Predictions,
    Rollouts,
    Routes,
    RoutesOf,
    Uploads,
    add_asyncapi,
    add_cluster,
    add_dead_letters,
    add_jobs,
    add_labels,
    add_models,
    add_monitoring,
    add_observation,
    add_open_inference,
    add_openapi,
    add_operating,
    add_page,
    add_predictions,
    add_rollouts,
    add_routes,
    add_topics,
    add_whoami,
    readyz,
)
from inferd.daemon.http.user_routes import UserRoutes
from inferd.daemon.http.worker.cluster_dead_letters import ClusterDeadLetters
from inferd.daemon.http.worker.cluster_topics import ClusterTopics
from inferd.daemon.http.worker.services import StreamsJobs
from inferd.daemon.settings import Settings, widest_host
from inferd.daemon.telemetry import StatusBoard


@dataclass(frozen=True, slots=True)
class Backends:
    """What the routes of the HTTP API delegate to."""

    predictions: Predictions
    models: Models
    routes: Routes
    rollouts: Rollouts
    monitoring: Monitoring
    operating: Operating
    jobs: StreamsJobs


def worker_app(
    settings: Settings,
    board: StatusBoard,
    backends: Backends,
    own_url: Callable[[], str],
    user_routes: UserRoutes | None = None,
    routes_of: RoutesOf = lambda _tenant: (),
) -> web.Application:
    """The application of a worker; `user_routes` take precedence. `own_url`: the URL at which other workers reach it;
    `routes_of`: the routes of a tenant.

    Raises `ServerError` if the file of tokens, of secrets or of authorities cannot be used.
    """
    cafile = settings.https_cafile
    app = create_app(
        access=access_of(settings, own_url),
        admission=Admission(settings.http_concurrency_max, board.draining, len(settings.tenants)),
        limits=limits_of(settings),
        roles=ROLES_OF_OPERATIONS,
    )
    if user_routes is not None:
        user_routes.add_to(app)
    add_observation(app, board)
    add_predictions(app, backends.predictions)
    add_models(app, backends.models, Uploads(settings.data_dir / "uploads", len(settings.tenants)))
    add_routes(app, backends.routes)
    add_rollouts(app, backends.rollouts)
    add_monitoring(app, backends.monitoring)
    add_labels(app)
    add_operating(app, backends.operating)
    forwarding = Forwarding(backends.jobs, None if cafile is None else peer_context(cafile))
    add_page(app)
    add_cluster(app, forwarding)
    add_dead_letters(app, ClusterDeadLetters(settings))
    add_topics(app, ClusterTopics(settings, routes_of))
    add_jobs(app, backends.jobs, forwarding, settings.streams().limits)
    add_open_inference(app, readyz, settings.streams().limits)
    add_peer(app)
    add_whoami(app)
    add_openapi(app)
    add_asyncapi(app, application_of(settings), routes_of)
    return app


def access_of(settings: Settings, own_url: Callable[[], str]) -> Access:
    """Authentication as configured by the settings."""
    tokens, secret = settings.http_tokens_file, settings.http_forwarding_secret_file
    return Access(
        settings.tenants,
        None if tokens is None else TokensFile(Path(tokens)),
        allowed_hosts_of(widest_host(settings), settings.http_allowed_hosts, settings.http_advertised_url),
        Peers(None if secret is None else read_peer_secret(Path(secret)), own_url),
    )


def http_server_of(app: web.Application, settings: Settings) -> HttpServer:
    """The server of the application, with the addresses, certificate and time limit of the settings.

    Raises `ServerError` if the certificate cannot be used.
    """
    tls = None
    if settings.https_port is not None and settings.https_certfile is not None:
        context = server_context(settings.https_certfile, settings.https_keyfile)
        tls = Listener(settings.https_host or settings.http_host, settings.https_port, context)
    return HttpServer(app, settings.http_host, settings.http_port, idle_timeout_s=settings.http_idle_timeout_s, tls=tls)


def limits_of(settings: Settings) -> AppLimits:
    """Limits of requests as configured by the settings."""
    return AppLimits(
        body_bytes_max=settings.message_bytes_max,
        upload_bytes_max=settings.artifact_bytes_max,
        read_timeout_s=settings.http_read_timeout_s,
        read_bytes_per_s_min=settings.http_read_bytes_per_s_min,
        timeout_s=settings.http_timeout_s,
    )
