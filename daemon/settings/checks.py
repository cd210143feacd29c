"""Checks between settings."""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from inferd.daemon.http.core import peer_context, read_peer_secret, read_tokens, server_context
from inferd.daemon.loopback import is_loopback
from inferd.daemon.settings.settings import Settings, settings_table
from inferd.daemon.settings.table import SettingsError
from inferd.schemas.errors import ServerError
from inferd.streams.connection import TokenError, load_provider
from inferd.streams.settings import TenantRates


class Bound(NamedTuple):
    """The setting `field` must not exceed `share` times the setting `of`."""

    field: str
    of: str
    reason: str
    share: float = 1.0
    words: str = ""
    """`share` as text for messages."""


AT_MOST = (
    Bound("heartbeat_interval_s", "session_timeout_s", "two heartbeats may be lost", 1 / 3, "a third of "),
    Bound("session_timeout_s", "request_timeout_s", "a request may wait for a rebalance"),
    Bound("revoke_timeout_s", "rebalance_timeout_s", "revoked partitions finish within the rebalance"),
    Bound("revoke_timeout_s", "transaction_timeout_s", "revoked partitions commit before the broker aborts"),
    Bound("revoke_timeout_s", "drain_timeout_s", "revoked partitions finish within a graceful stop"),
    Bound("rebalance_timeout_s", "stall_timeout_s", "a rebalance of that length is not a stall"),
    Bound("model_load_timeout_s", "stall_timeout_s", "a request that waits for its model is not a stall"),
    Bound(
        "inline_ms_max",
        "heartbeat_interval_s",
        "heartbeats wait for an inline prediction",
        1_000,
        "the milliseconds of ",
    ),
    Bound("message_bytes_max", "batch_bytes_max", "a micro-batch holds at least one request"),
    Bound("message_bytes_max", "batch_expanded_bytes_max", "a compressed batch holds at least one request"),
    Bound("batch_bytes_max", "buffer_bytes_max", "the buffer holds at least one micro-batch"),
    Bound("result_bytes_max", "in_flight_bytes_max", "at least one result may be in flight"),
    Bound("job_retention_s", "topic_retention_ms", "results are kept that long", 1 / 1_000, "the seconds of "),
    Bound("job_chunk_rows", "job_chunk_rows_max", "the default is within what a job may request"),
)
"""Upper bounds of settings by other settings."""
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 (compared with, not bound)
"""Hosts that mean every address of the machine; the loopback address is advertised instead."""
_INFO = {info.field: info for info in settings_table()}


OAUTH_SOURCES = ("kafka_oauth_token_file", "kafka_oauth_token_url", "kafka_oauth_provider")
OAUTH_OF_ENDPOINT = (
    *("kafka_oauth_client_id", "kafka_oauth_client_secret", "kafka_oauth_client_secret_file"),
    *("kafka_oauth_scope", "kafka_oauth_ssl_cafile"),
)


def check_connection(settings: Settings) -> Settings:
    """`settings` if their connection settings are valid, else `SettingsError`."""
    return _checked(settings, _connection_problems(settings))


def check_worker(settings: Settings) -> Settings:
    """`settings` if a worker can run with them, else `SettingsError`."""
    return _checked(settings, [*_connection_problems(settings), *_worker_problems(settings)])


def worker_warnings(settings: Settings) -> tuple[str, ...]:
    """Settings that a worker accepts, but that are probably a mistake."""
    of_http = () if is_loopback(widest_host(settings)) else (*_unreachable_url(settings), *_missing_secret(settings))
    return (*_plain_token_url(settings), *of_http)


def _plain_token_url(settings: Settings) -> Iterator[str]:
    url = urlsplit(settings.kafka_oauth_token_url or "")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield f"INFERD_KAFKA_OAUTH_TOKEN_URL={url.geturl()}: the client secret is sent without encryption. Use https"


def widest_host(settings: Settings) -> str:
    """The host that HTTP listens on; if there are two, the one that other machines reach."""
    over_tls = settings.https_host if settings.https_port is not None else None
    return settings.http_host if over_tls is None or is_loopback(over_tls) else over_tls


def _unreachable_url(settings: Settings) -> Iterator[str]:
    advertised = settings.http_advertised_url
    listens_on = widest_host(settings)
    host = listens_on if advertised is None else urlsplit(advertised).hostname or ""
    if is_loopback(host) or host in WILDCARDS:
        yield (
            f"INFERD_HTTP_ADVERTISED_URL: HTTP listens on {listens_on}, but this worker advertises"
            f" {advertised or 'the loopback'}, which other machines cannot reach: requests about its jobs"
            " fail on other workers. Set it to http://<address of this machine or container>:<port>"
        )


def _missing_secret(settings: Settings) -> Iterator[str]:
    if settings.http_tokens_file is not None and settings.http_forwarding_secret_file is None:
        yield (
            "INFERD_HTTP_FORWARDING_SECRET_FILE is not set: with several workers, requests about jobs that another"
            " worker owns fail. Give all workers the same secret, made with `openssl rand -hex 32`"
        )


def _checked(settings: Settings, problems: Iterator[str] | list[str]) -> Settings:
    if found := list(problems):
        raise SettingsError(found)
    return settings


def _connection_problems(settings: Settings) -> Iterator[str]:
    protocol = settings.kafka_security_protocol
    credentials = ("kafka_sasl_username", "kafka_sasl_password", "kafka_sasl_password_file")
    certificates = ("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile")
    if protocol.startswith("SASL"):
        yield from _sasl_problems(settings)
    else:
        yield from _unused(settings, (*credentials, *OAUTH_SOURCES, *OAUTH_OF_ENDPOINT), "SASL_PLAINTEXT or SASL_SSL")
    if "SSL" not in protocol.split("_"):
        yield from _unused(settings, certificates, "SSL or SASL_SSL")
        return
    if settings.kafka_ssl_keyfile and not settings.kafka_ssl_certfile:
        yield from _missing(settings, ("kafka_ssl_certfile",), f"{_shown(settings, 'kafka_ssl_keyfile')} needs it")
        return
    yield from _tls_problems(settings)


def _registry_problems(settings: Settings) -> Iterator[str]:
    others = [info.field for info in settings_table() if info.section == "Schema registry"]
    if settings.schema_registry_url is None:
        given = [name for name in others if getattr(settings, name) != _INFO[name].default]
        for name in given:
            yield f"{_shown(settings, name)} has no effect without INFERD_SCHEMA_REGISTRY_URL"
        return
    for secret in ("password", "token"):
        value, file = (getattr(settings, f"schema_registry_{secret}{suffix}") for suffix in ("", "_file"))
        if value and file:
            name = f"INFERD_SCHEMA_REGISTRY_{secret.upper()}"
            yield f"{name} and {name}_FILE are both set: keep one"
    if settings.schema_registry_ssl_keyfile and not settings.schema_registry_ssl_certfile:
        yield "INFERD_SCHEMA_REGISTRY_SSL_CERTFILE is not set: INFERD_SCHEMA_REGISTRY_SSL_KEYFILE needs it"
        return
    connection = settings.schema_registry()
    try:
        _ = connection and connection.ssl_context()
    except (OSError, ssl.SSLError) as error:
        yield f"INFERD_SCHEMA_REGISTRY_SSL_…: the files cannot be used ({error}): expected PEM files"


def _oauth_problems(settings: Settings) -> Iterator[str]:
    given = [name for name in OAUTH_SOURCES if getattr(settings, name)]
    if len(given) != 1:
        names = ", ".join(_INFO[name].variable for name in OAUTH_SOURCES)
        yield f"{_shown(settings, 'kafka_sasl_mechanism')} needs one of {names}; {len(given)} are set"
        return
    if given == ["kafka_oauth_token_url"]:
        reason = f"{_shown(settings, 'kafka_oauth_token_url')} needs it"
        yield from _missing(settings, ("kafka_oauth_client_id",), reason)
        if settings.kafka_oauth_client_secret_file is None:
            reason += ", or INFERD_KAFKA_OAUTH_CLIENT_SECRET_FILE"
            yield from _missing(settings, ("kafka_oauth_client_secret",), reason)
        elif settings.kafka_oauth_client_secret:
            yield "INFERD_KAFKA_OAUTH_CLIENT_SECRET and INFERD_KAFKA_OAUTH_CLIENT_SECRET_FILE are both set: keep one"
    else:
        for name in OAUTH_OF_ENDPOINT:
            if getattr(settings, name):
                yield f"{_shown(settings, name)} has no effect without INFERD_KAFKA_OAUTH_TOKEN_URL"
    if settings.kafka_oauth_provider:
        try:
            load_provider(settings.kafka_oauth_provider)
        except TokenError as error:
            yield f"INFERD_KAFKA_OAUTH_PROVIDER cannot be used: {error.words}"


def _sasl_problems(settings: Settings) -> Iterator[str]:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        yield from _oauth_problems(settings)
        for name in ("kafka_sasl_username", "kafka_sasl_password", "kafka_sasl_password_file"):
            if getattr(settings, name):
                yield f"{_shown(settings, name)} has no effect with {_shown(settings, 'kafka_sasl_mechanism')}"
        return
    for name in (*OAUTH_SOURCES, *OAUTH_OF_ENDPOINT):
        if getattr(settings, name):
            yield f"{_shown(settings, name)} has no effect without INFERD_KAFKA_SASL_MECHANISM=OAUTHBEARER"
    reason = f"{_shown(settings, 'kafka_security_protocol')} needs it"
    yield from _missing(settings, ("kafka_sasl_username",), reason)
    if settings.kafka_sasl_password_file is None:
        yield from _missing(settings, ("kafka_sasl_password",), f"{reason}, or INFERD_KAFKA_SASL_PASSWORD_FILE")
    elif settings.kafka_sasl_password:
        yield f"{_shown(settings, 'kafka_sasl_password_file')} and INFERD_KAFKA_SASL_PASSWORD are both set: keep one"


def _tls_problems(settings: Settings) -> Iterator[str]:
    files = ", ".join(
        _shown(settings, name)
        for name in ("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile")
        if getattr(settings, name)
    )
    try:
        settings.connection().ssl_context()
    except (OSError, ssl.SSLError) as error:
        yield f"{files} cannot be used ({error}): expected PEM files of a CA, a certificate and its key"


def _worker_problems(settings: Settings) -> Iterator[str]:
    for bound in AT_MOST:
        if getattr(settings, bound.field) > getattr(settings, bound.of) * bound.share:
            limit = f"at most {bound.words}{_shown(settings, bound.of)}"
            yield f"{_shown(settings, bound.field)} is not allowed: it must be {limit}"
    if settings.labels_window_s > 3_600 * settings.monitor_windows_h:
        yield (
            f"{_shown(settings, 'labels_window_s')} is not allowed: labels count in windows, which are kept for"
            f" {_shown(settings, 'monitor_windows_h')} hours. Set INFERD_MONITOR_WINDOWS_H to"
            f" {math.ceil(settings.labels_window_s / 3_600)} or more"
        )
    for field in ("quota_requests_per_s", "quota_bytes_per_s"):
        rates: TenantRates = getattr(settings, field)
        if unknown := sorted({tenant for tenant, _ in rates.by_tenant}.difference(settings.tenants)):
            yield (
                f"{_shown(settings, field)} is not allowed: {', '.join(unknown)} is not in"
                f" {_shown(settings, 'tenants')}"
            )
    yield from _http_problems(settings)
    yield from _registry_problems(settings)


def _https_problems(settings: Settings) -> Iterator[str]:
    if settings.https_port is None:
        for name in ("https_host", "https_certfile", "https_keyfile"):
            if getattr(settings, name):
                yield f"{_shown(settings, name)} has no effect without INFERD_HTTPS_PORT"
    elif settings.https_certfile is None:
        yield from _missing(settings, ("https_certfile",), f"{_shown(settings, 'https_port')} needs it")
    else:
        try:
            server_context(settings.https_certfile, settings.https_keyfile)
        except ServerError as error:
            yield f"INFERD_HTTPS_CERTFILE, INFERD_HTTPS_KEYFILE cannot be used: {error.message}"
    try:
        _ = settings.https_cafile and peer_context(settings.https_cafile)
    except ServerError as error:
        yield f"INFERD_HTTPS_CAFILE cannot be used: {error.message}"


def _http_problems(settings: Settings) -> Iterator[str]:
    yield from _https_problems(settings)
    if settings.http_forwarding_secret_file is not None:
        try:
            read_peer_secret(Path(settings.http_forwarding_secret_file))
        except ServerError as error:
            yield f"INFERD_HTTP_FORWARDING_SECRET_FILE cannot be used: {error.message}"
    if settings.http_tokens_file is not None:
        try:
            read_tokens(Path(settings.http_tokens_file))
        except ServerError as error:
            yield f"INFERD_HTTP_TOKENS_FILE cannot be used: {error.message}"
    elif not is_loopback(host := widest_host(settings)) and not settings.insecure_http:
        name = "http_host" if host == settings.http_host else "https_host"
        yield (
            f"{_shown(settings, name)} is not allowed: other machines could reach an HTTP server without"
            " authentication. Set INFERD_HTTP_TOKENS_FILE, or use a loopback address (127.0.0.1, ::1, localhost). To"
            " allow it, set INFERD_INSECURE_HTTP=true (--insecure-http)"
        )


def _missing(settings: Settings, names: tuple[str, ...], reason: str) -> Iterator[str]:
    for name in names:
        if not getattr(settings, name):
            yield f"{_INFO[name].variable} is not set: {reason}"


def _unused(settings: Settings, names: tuple[str, ...], protocols: str) -> Iterator[str]:
    for name in names:
        if getattr(settings, name):
            yield (
                f"{_shown(settings, name)} has no effect with {_shown(settings, 'kafka_security_protocol')}:"
                f" it needs {protocols}"
            )


def _shown(settings: Settings, name: str) -> str:
    info = _INFO[name]
    return f"{info.variable}={info.kind.show(getattr(settings, name))}"
