# ruff: noqa: RUF009  (the calls return fields, like dataclasses.field)
"""All settings of the process, as one frozen value.

Each field of `Settings` is one environment variable (`INFERD_` and its name in capitals) and one flag of
`inferd worker`; its kind defines the allowed values. Flags, error messages and docs/settings.md are generated from it.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from inferd.daemon.broker.registry import EmbeddedRegistrySettings
from inferd.daemon.broker.settings import EmbeddedKafkaSettings, default_cache_dir, default_data_dir
from inferd.daemon.settings import kinds as kind
from inferd.daemon.settings.table import (
    SettingInfo,
    SettingsError,
    info_of,
    setting,
    unknown_names,
)
from inferd.schemas.connection import KafkaConnection, SchemaRegistryConnection
from inferd.schemas.limits import Limits
from inferd.schemas.oauth import OAuth
from inferd.schemas.topics import DEFAULT_TENANT
from inferd.streams.settings import (
    NO_URL,
    CacheSettings,
    Compression,
    GroupSettings,
    Guarantee,
    Kernels,
    LaneSettings,
    ModelSettings,
    Monitoring,
    MonitorSettings,
    QuotaSettings,
    RouteSettings,
    Store,
    StreamSettings,
    TenantRates,
    TopicSettings,
    TrialSettings,
)

GIB = 1_024**3
DEFAULT_BROKER = KafkaConnection().bootstrap_servers

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
Uvloop = Literal["auto", "on", "off"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
OffsetReset = Literal["earliest", "latest"]

_LANE, _GROUP, _TOPICS, _TRIAL, _LIMITS = LaneSettings(), GroupSettings(), TopicSettings(), TrialSettings(), Limits()
_CACHE, _MODELS, _MONITOR, _QUOTA = CacheSettings(), ModelSettings(), MonitorSettings(), QuotaSettings()
_LABELS_WINDOW_S = 0.0  # each prediction is a record more
_CAPTURE_SHARE = 0.0  # captured requests hold values of features
_CLASS_NAME = kind.text(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", "a class with its module, such as mypackage.MyServer")
_GROUP_TEXT = kind.text(r"[A-Za-z0-9._-]{1,200}", "1 to 200 of A-Z a-z 0-9 . _ -")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the process; constructed by `from_environment`."""

    SECTIONS: ClassVar = (
        "Kafka",
        "Consumer group",
        "Topics",
        "Processing",
        "Schema registry",
        "Routes",
        "Limits",
        "Jobs",
        "Models",
        "HTTP",
        "Own classes",
        "Process",
        "Embedded broker",
    )

    broker: str | None = setting(
        kind.addresses(),
        None,
        "Bootstrap servers. `inferd up` starts an embedded broker unless this is set.",
        "Kafka",
        shown_default=DEFAULT_BROKER,
    )
    namespace: str = setting(kind.topic_part("namespace"), "inferd", "First part of every topic name.", "Kafka")
    tenants: tuple[str, ...] = setting(
        kind.tenants(), (DEFAULT_TENANT,), "Tenants to serve; the second part of topic names.", "Kafka"
    )
    kafka_security_protocol: SecurityProtocol = setting(
        kind.choice(SecurityProtocol), "PLAINTEXT", "Security protocol of connections to the brokers.", "Kafka"
    )
    kafka_ssl_cafile: str | None = setting(
        kind.file(), None, "PEM file of the certificate authority that signed the brokers' certificates.", "Kafka"
    )
    kafka_ssl_certfile: str | None = setting(
        kind.file(), None, "PEM file of the client certificate, for brokers that require one.", "Kafka"
    )
    kafka_ssl_keyfile: str | None = setting(
        kind.file(), None, "PEM file of the client certificate's private key.", "Kafka"
    )
    kafka_sasl_mechanism: SaslMechanism = setting(
        kind.choice(SaslMechanism), "PLAIN", "SASL mechanism, for SASL_PLAINTEXT and SASL_SSL.", "Kafka"
    )
    kafka_sasl_username: str | None = setting(kind.text(r".{1,512}", "text"), None, "User name for SASL.", "Kafka")
    kafka_sasl_password: str | None = setting(kind.secret(), None, "Password for SASL.", "Kafka")
    kafka_sasl_password_file: str | None = setting(
        kind.file(), None, "File whose first line is the password for SASL, instead of the password itself.", "Kafka"
    )
    kafka_oauth_token_file: str | None = setting(
        kind.file(),
        None,
        "File with a token for OAUTHBEARER, read before each authentication, so that it can be replaced at any time.",
        "Kafka",
    )
    kafka_oauth_token_url: str | None = setting(
        kind.text(r"https?://[^\s/@?#]+(/[^\s#]*)?", "http://host:port/path or https://host/path"),
        None,
        "Token endpoint for OAUTHBEARER with OIDC client credentials.",
        "Kafka",
    )
    kafka_oauth_client_id: str | None = setting(
        kind.text(r"[^\x00-\x1f]{1,512}", "text"), None, "Client id for the token endpoint.", "Kafka"
    )
    kafka_oauth_client_secret: str | None = setting(
        kind.secret(), None, "Client secret for the token endpoint.", "Kafka"
    )
    kafka_oauth_client_secret_file: str | None = setting(
        kind.file(), None, "File whose first line is the client secret, instead of the secret itself.", "Kafka"
    )
    kafka_oauth_scope: str | None = setting(
        kind.text(r"[\x20-\x7e]{1,512}", "scopes separated by spaces"), None, "Scopes of the token.", "Kafka"
    )
    kafka_oauth_ssl_cafile: str | None = setting(
        kind.file(),
        None,
        "PEM file of the authority that signed the certificate of the token endpoint.",
        "Kafka",
        shown_default="<those of the system>",
    )
    kafka_oauth_provider: str | None = setting(
        kind.text(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+", "module.Class"),
        None,
        "Subclass of `inferd.TokenProvider` that makes the tokens for OAUTHBEARER.",
        "Kafka",
    )
    request_timeout_s: float = setting(
        kind.number(1, 600), _GROUP.request_timeout_s, "Timeout of a request to a broker.", "Kafka"
    )

    group_id: str | None = setting(
        _GROUP_TEXT,
        None,
        "Consumer group of the workers. All members of a group must serve the same tenants.",
        "Consumer group",
        shown_default="<namespace>",
    )
    instance_id: str | None = setting(
        _GROUP_TEXT,
        None,
        "Static membership: a name that is unique to each worker and kept across restarts, so that a restart within"
        " the session timeout causes no rebalance.",
        "Consumer group",
    )
    session_timeout_s: float = setting(
        kind.number(1, 1_800),
        _GROUP.session_timeout_s,
        "A worker without heartbeats for that long loses its partitions; one whose event loop was blocked for that long"
        " exits.",
        "Consumer group",
    )
    heartbeat_interval_s: float = setting(
        kind.number(0.05, 600), _GROUP.heartbeat_interval_s, "Time between heartbeats to the group.", "Consumer group"
    )
    rebalance_timeout_s: float = setting(
        kind.number(1, 3_600), _GROUP.rebalance_timeout_s, "Time for members to rejoin the group.", "Consumer group"
    )
    offset_reset: OffsetReset = setting(
        kind.choice(OffsetReset),
        _GROUP.offset_reset,
        "Where to start on a partition that has no committed offset.",
        "Consumer group",
    )
    stall_timeout_s: float = setting(
        kind.number(5, 86_400),
        _GROUP.stall_timeout_s,
        "A rebalance, a recovery or queued work without progress for that long ends the worker with exit code 71.",
        "Consumer group",
    )

    topics_create: bool = setting(
        kind.switch(), _TOPICS.create, "Create missing topics; if off, only verify them.", "Topics"
    )
    topic_partitions: int = setting(
        kind.integer(1, 10_000),
        _TOPICS.partitions,
        "Partitions of a tenant's topics when they are created; stays as it is when they get more.",
        "Topics",
    )
    topic_replication: int = setting(
        kind.integer(1, 32),
        _TOPICS.replication,
        "Replication factor of the topics; existing topics must match.",
        "Topics",
    )
    topic_retention_ms: int = setting(
        kind.integer(60_000), _TOPICS.retention_ms, "Retention of the topics; existing topics must match.", "Topics"
    )

    processing_guarantee: Guarantee = setting(
        kind.choice(Guarantee),
        "at_least_once",
        "Results after a crash: published again with the same bytes (at_least_once), or exactly once.",
        "Processing",
    )
    transaction_timeout_s: float = setting(
        kind.number(1, 900),
        15.0,
        "How long the broker keeps an idle transaction open before it aborts it (exactly_once).",
        "Processing",
    )
    compression: Compression = setting(
        kind.choice(Compression), "none", "Compression of results and dead letters.", "Processing"
    )
    reply_to_allowed: tuple[str, ...] = setting(
        kind.topics(), (), "Topics that a `reply-to` header may name.", "Processing"
    )
    routes_sources: tuple[str, ...] = setting(
        kind.topic_patterns(), (), "Topics that routes may read.", "Routes", shown_default="none"
    )
    routes_sinks: tuple[str, ...] = setting(
        kind.topic_patterns(), (), "Topics that routes may write.", "Routes", shown_default="none"
    )
    predict_threads: int = setting(
        kind.integer(1, 256),
        1,
        "Threads of one prediction. More threads help a single worker with large requests, and cost CPU under load.",
        "Processing",
    )
    kernels: Kernels = setting(
        kind.choice(Kernels),
        "auto",
        "Compiled kernels read rows and score LightGBM models (auto); without them (off) results are the same bytes.",
        "Processing",
    )
    batch_rows_max: int = setting(
        kind.integer(1, 1_000_000), _LANE.batch_rows_max, "Maximum number of records of a micro-batch.", "Processing"
    )
    batch_bytes_max: int = setting(
        kind.integer(1_024, GIB), _LANE.batch_bytes_max, "Maximum size of a micro-batch.", "Processing"
    )
    batch_wait_ms: float = setting(
        kind.number(0, 10_000),
        _LANE.batch_wait_ms,
        "How long to wait for a micro-batch to fill; 0 scores queued records immediately.",
        "Processing",
    )
    inline_ms_max: float = setting(
        kind.number(0, 10_000),
        _LANE.inline_ms_max,
        "A prediction expected to take longer runs in a thread, so that it does not delay heartbeats.",
        "Processing",
    )
    buffer_bytes_max: int = setting(
        kind.integer(1_024, 64 * GIB),
        _LANE.buffer_bytes_max,
        "Maximum size of records fetched and not yet scored.",
        "Processing",
    )
    in_flight_bytes_max: int = setting(
        kind.integer(1_024, 64 * GIB),
        _LANE.in_flight_bytes_max,
        "Maximum size of results published and not yet acknowledged.",
        "Processing",
    )
    commit_interval_s: float = setting(
        kind.number(0.01, 60), _LANE.commit_interval_s, "Time between commits of acknowledged offsets.", "Processing"
    )
    revoke_timeout_s: float = setting(
        kind.number(0, 300),
        _LANE.revoke_timeout_s,
        "How long a revoked partition may take to finish its in-flight batches.",
        "Processing",
    )
    jobs_share: float = setting(
        kind.number(0.05, 1),
        _LANE.jobs_share,
        "Share of a worker's time that chunks of batch jobs may take while there are requests.",
        "Processing",
    )

    quota_requests_per_s: TenantRates = setting(
        kind.tenant_rates(10**9),
        _QUOTA.requests_per_s,
        "Requests a second that all workers together score for each tenant; 0: unlimited.",
        "Processing",
    )
    quota_bytes_per_s: TenantRates = setting(
        kind.tenant_rates(10**12),
        _QUOTA.bytes_per_s,
        "Bytes a second of requests that all workers together score for each tenant; 0: unlimited.",
        "Processing",
    )

    capture_share: float = setting(
        kind.number(0, 1),
        _CAPTURE_SHARE,
        "Share of the requests that are captured in `<tenant>.capture`, with the values of their features.",
        "Processing",
    )

    labels_window_s: float = setting(
        kind.number(0, 31 * 86_400),
        _LABELS_WINDOW_S,
        "How long predictions wait for labels in `<tenant>.labels`; 0: they do not, and labels are not read.",
        "Processing",
    )

    cache_store: Store = setting(
        kind.choice(Store),
        _CACHE.store,
        "Local store of the prediction cache, backed by its changelog: `rocksdb` needs the package rocksdict.",
        "Processing",
    )
    cache_ttl_max_s: float = setting(
        kind.number(60, 365 * 86_400),
        _CACHE.ttl_max_s,
        "Maximum age of an entry of the prediction cache, and retention of its changelog.",
        "Processing",
    )
    cache_block_cache_bytes: int = setting(
        kind.integer(1_048_576, 64 * GIB),
        _CACHE.block_cache_bytes,
        "Block cache of RocksDB, shared by all tables and partitions.",
        "Processing",
    )

    schema_registry_url: str | None = setting(
        kind.text(r"https?://[^\s/@?#]+(/[^\s?#]*)?", "http://host:port or https://host, with a path where it has one"),
        None,
        "Schema registry with Confluent's API, for routes in Avro and Protobuf.",
        "Schema registry",
    )
    schema_registry_username: str | None = setting(
        kind.text(r"[^:]{1,512}", "text without a colon"),
        None,
        "User name for basic authentication, or the key of an API.",
        "Schema registry",
    )
    schema_registry_password: str | None = setting(
        kind.secret(), None, "Password for basic authentication.", "Schema registry"
    )
    schema_registry_password_file: str | None = setting(
        kind.file(), None, "File whose first line is this password, instead of the password itself.", "Schema registry"
    )
    schema_registry_token: str | None = setting(
        kind.secret(), None, "Bearer token, instead of a user name and a password.", "Schema registry"
    )
    schema_registry_token_file: str | None = setting(
        kind.file(), None, "File whose first line is this token, instead of the token itself.", "Schema registry"
    )
    schema_registry_ssl_cafile: str | None = setting(
        kind.file(),
        None,
        "PEM file of the certificate authority that signed the registry's certificate; by default those of the system.",
        "Schema registry",
    )
    schema_registry_ssl_certfile: str | None = setting(
        kind.file(), None, "PEM file of the client certificate, for a registry that requires one.", "Schema registry"
    )
    schema_registry_ssl_keyfile: str | None = setting(
        kind.file(), None, "PEM file of the client certificate's private key.", "Schema registry"
    )
    schema_registry_timeout_s: float = setting(
        kind.number(0.1, 600), 10.0, "Timeout of a request to the registry; it is repeated.", "Schema registry"
    )

    message_bytes_max: int = setting(
        kind.integer(1_024, GIB), _LIMITS.message_bytes_max, "Bytes of one request.", "Limits"
    )
    result_bytes_max: int = setting(
        kind.integer(1_024, GIB), _LIMITS.result_bytes_max, "Bytes of one result.", "Limits"
    )
    batch_expanded_bytes_max: int = setting(
        kind.integer(1_024, 16 * GIB),
        _LIMITS.batch_expanded_bytes_max,
        "Bytes of a compressed batch, expanded.",
        "Limits",
    )
    rows_max: int = setting(kind.integer(1, 10_000_000), _LIMITS.rows_max, "Rows of one request.", "Limits")
    features_max: int = setting(kind.integer(1, 1_000_000), _LIMITS.features_max, "Features of one row.", "Limits")
    values_max: int = setting(
        kind.integer(1, 100_000_000), _LIMITS.values_max, "Rows x features of one request.", "Limits"
    )
    depth_max: int = setting(kind.integer(4, 64), _LIMITS.depth_max, "Nesting depth of a request.", "Limits")
    string_chars_max: int = setting(
        kind.integer(1, 1_000_000), _LIMITS.string_chars_max, "Characters of one text or category in a row.", "Limits"
    )
    headers_max: int = setting(kind.integer(8, 10_000), _LIMITS.headers_max, "Headers of one record.", "Limits")
    header_bytes_max: int = setting(
        kind.integer(256, 1_048_576), _LIMITS.header_bytes_max, "Bytes of one header, key and value.", "Limits"
    )

    job_rows_max: int = setting(kind.integer(1, 100_000_000), _LIMITS.job_rows_max, "Rows of one job.", "Jobs")
    job_messages_max: int = setting(
        kind.integer(1, 16_384), _LIMITS.job_messages_max, "`rows` messages of one job.", "Jobs"
    )
    job_message_rows_max: int = setting(
        kind.integer(1, 1_000_000), _LIMITS.job_message_rows_max, "Rows of one message of a job.", "Jobs"
    )
    job_chunks_max: int = setting(kind.integer(1, 32_768), _LIMITS.job_chunks_max, "Chunks of one job.", "Jobs")
    job_chunk_rows: int = setting(
        kind.integer(1, 4_096),
        _LIMITS.job_chunk_rows,
        "Rows of a chunk, unless the job requests another number.",
        "Jobs",
    )
    job_chunk_rows_max: int = setting(
        kind.integer(1, 4_096), _LIMITS.job_chunk_rows_max, "Maximum rows of a chunk that a job may request.", "Jobs"
    )
    job_chunk_bytes_max: int = setting(
        kind.integer(0, 900_000),
        _LIMITS.job_chunk_bytes_max,
        "Bytes of rows that a chunk message contains; larger chunks are read from `jobs`.",
        "Jobs",
    )
    job_attempts_max: int = setting(kind.integer(0, 200), _LIMITS.job_attempts_max, "Retries of one job.", "Jobs")
    job_labels_max: int = setting(kind.integer(0, 1_000), _LIMITS.job_labels_max, "Labels of one job.", "Jobs")
    job_open_max_s: float = setting(
        kind.number(1, 365 * 86_400),
        _LIMITS.job_open_max_s,
        "A job without a deadline must receive all its rows within that time of its first message.",
        "Jobs",
    )
    job_deadline_grace_s: float = setting(
        kind.number(0, 86_400),
        _LIMITS.job_deadline_grace_s,
        "How long in-flight chunks may finish after the deadline of their job.",
        "Jobs",
    )
    job_retention_s: float = setting(
        kind.number(1, 3_650 * 86_400),
        _LIMITS.job_retention_s,
        "How long the results of a job can be read, from its first message on.",
        "Jobs",
    )
    jobs_open_max: int = setting(
        kind.integer(1, 1_000_000),
        _LIMITS.jobs_open_max,
        "Open jobs of a tenant, per partition of `jobs`.",
        "Jobs",
    )
    jobs_rows_max: int = setting(
        kind.integer(1, 10**12), _LIMITS.jobs_rows_max, "Rows of these open jobs in total.", "Jobs"
    )
    jobs_bytes_max: int = setting(
        kind.integer(1_024, 1_024 * 1_024 * GIB),
        _LIMITS.jobs_bytes_max,
        "Bytes of the messages of these open jobs in total.",
        "Jobs",
    )

    artifact_bytes_max: int = setting(
        kind.integer(1_024, 16 * GIB), _LIMITS.artifact_bytes_max, "Bytes of one model file.", "Models"
    )
    model_types_allowed: tuple[str, ...] = setting(
        kind.type_names(),
        (),
        "Types that a `.skops` file may name, besides those of numpy, scipy and scikit-learn: their code is trusted.",
        "Models",
    )
    trial_memory_bytes_max: int = setting(
        kind.integer(256 * 1_024**2, 1_024 * GIB),
        _TRIAL.memory_bytes_max,
        "Memory limit of the disposable process that loads and runs a model first.",
        "Models",
    )
    trial_timeout_s: float = setting(kind.number(1, 3_600), _TRIAL.timeout_s, "Timeout of that process.", "Models")
    models_bytes_max: int = setting(
        kind.integer(0, 1_024 * GIB),
        _MODELS.bytes_max,
        "Bytes of memory that loaded models may take. Beyond it, a version is loaded when a request needs it, and the"
        " least recently used is unloaded. 0: no bound, all versions are loaded.",
        "Models",
    )
    model_load_timeout_s: float = setting(
        kind.number(0.1, 3_600),
        _MODELS.load_timeout_s,
        "How long a request waits for its model to be loaded.",
        "Models",
    )
    monitor: Monitoring = setting(
        kind.choice(Monitoring),
        _MONITOR.mode,
        "What is counted of each model version: `off`, nothing; `sampled`, requests, rows, errors and latencies, and"
        " the features and predictions of some rows; `all`, of all rows.",
        "Models",
    )
    monitor_windows_h: int = setting(
        kind.integer(1, 24 * 31), _MONITOR.windows_h, "How many hours these counts are kept.", "Models"
    )

    http_host: str = setting(
        kind.text(r"[A-Za-z0-9._:-]{1,253}", "a host name or an IP address"),
        "127.0.0.1",
        "Address that the HTTP server listens on.",
        "HTTP",
    )
    http_advertised_url: str | None = setting(
        kind.text(r"https?://[^\s/]{1,250}", "http://host:port"),
        None,
        "URL at which other workers reach this one, to forward requests about jobs that it owns.",
        "HTTP",
        shown_default="<the address it listens on>",
    )
    http_port: int = setting(kind.integer(0, 65_535), 8080, "Port of the HTTP server; 0 chooses a free port.", "HTTP")
    https_port: int | None = setting(
        kind.integer(0, 65_535),
        None,
        "Port on which the HTTP server listens with TLS, too; 0 chooses a free port.",
        "HTTP",
        shown_default="<none: no TLS>",
    )
    https_host: str | None = setting(
        kind.text(r"[A-Za-z0-9._:-]{1,253}", "a host name or an IP address"),
        None,
        "Address that the HTTP server listens on with TLS.",
        "HTTP",
        shown_default="<INFERD_HTTP_HOST>",
    )
    https_certfile: str | None = setting(
        kind.file(),
        None,
        "PEM file of the server's certificate, with the intermediate ones. Reloaded if it changes.",
        "HTTP",
    )
    https_keyfile: str | None = setting(
        kind.file(), None, "PEM file of its private key, unless the certificate's file has it.", "HTTP"
    )
    https_cafile: str | None = setting(
        kind.file(),
        None,
        "PEM file of the authority that signed the certificates of the other workers, for requests between them.",
        "HTTP",
        shown_default="<those of the system>",
    )
    http_tokens_file: str | None = setting(
        kind.file(),
        None,
        "Bearer tokens for HTTP: lines `tenant:sha256:name:roles`; `*` means all tenants (`docs/http.md`).",
        "HTTP",
    )
    http_forwarding_secret_file: str | None = setting(
        kind.file(),
        None,
        "Secret shared by all workers of a group, with which they authenticate to each other when they forward requests"
        " about jobs: a line of 32 characters or more. Further lines are accepted, too, for rotation. Required for"
        " several workers with tokens.",
        "HTTP",
    )
    http_allowed_hosts: tuple[str, ...] = setting(
        kind.hosts(),
        (),
        "Host names, besides those of loopback, that an HTTP server without tokens accepts in the header `Host`; others"
        " are rejected. A server that listens beyond loopback accepts every name unless this is set.",
        "HTTP",
    )
    http_timeout_s: float = setting(
        kind.number(0.01, 3_600), 30.0, "Timeout of a prediction over HTTP (`deadline_exceeded`).", "HTTP"
    )
    http_read_timeout_s: float = setting(
        kind.number(0.1, 600),
        10.0,
        "How long the server waits for a request body, in addition to the time that its bytes allow.",
        "HTTP",
    )
    http_read_bytes_per_s_min: int = setting(
        kind.integer(1, GIB),
        65_536,
        "Minimum rate of a request body after that time; a slower request is aborted (`request_timeout`).",
        "HTTP",
    )
    http_idle_timeout_s: float = setting(
        kind.number(0.1, 3_600),
        30.0,
        "How long a connection may be idle, and how long the headers of a request may take.",
        "HTTP",
    )
    http_concurrency_max: int = setting(
        kind.integer(1, 100_000), 256, "Concurrent requests; more are rejected with 429.", "HTTP"
    )
    insecure_http: bool = setting(
        kind.switch(),
        False,
        "Serve HTTP without authentication on an address that other machines can reach.",
        "HTTP",
    )

    server: str | None = setting(
        _CLASS_NAME,
        None,
        "Subclass of `inferd.ModelServer`, as `module.Class`: its routes are added to the HTTP port.",
        "Own classes",
    )
    batch_predictor: str | None = setting(
        _CLASS_NAME,
        None,
        "Subclass of `inferd.BatchPredictor`: its `process_batch` scores the chunks of jobs.",
        "Own classes",
    )
    realtime_predictor: str | None = setting(
        _CLASS_NAME,
        None,
        "Subclass of `inferd.RealtimePredictor`: its `predict` or `predict_batch` answers requests.",
        "Own classes",
    )

    worker_id: str = setting(
        kind.text(r"[A-Za-z0-9._-]{1,128}", "1 to 128 of A-Z a-z 0-9 . _ -"),
        "",
        "Name of this worker in results, logs and `/status`.",
        "Process",
        shown_default="<host name>-<process id>",
    )
    data_dir: Path = setting(
        kind.directory(),
        Path(),
        "Data directory of the worker and the embedded broker.",
        "Process",
        shown_default="~/.local/share/inferd",
    )
    drain_timeout_s: float = setting(
        kind.number(0.1, 3_600),
        25.0,
        "Timeout of a graceful stop. After it the worker exits with code 70; unfinished work is not committed.",
        "Process",
    )
    log_format: LogFormat = setting(
        kind.choice(LogFormat), "auto", "`auto`: console format on a terminal, JSON elsewhere.", "Process"
    )
    log_level: LogLevel = setting(kind.choice(LogLevel), "info", "Minimum log level.", "Process")
    otel_endpoint: str | None = setting(
        kind.text(r"https?://[^\s/]+(/[^\s]*)?", "http://host:port"),
        None,
        "OpenTelemetry collector for spans over OTLP/HTTP; `/v1/traces` is appended. Needs `inferd[otel]`. Sampling,"
        " headers and names are set with OpenTelemetry's own variables (OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, …).",
        "Process",
    )
    uvloop: Uvloop = setting(
        kind.choice(Uvloop), "auto", "Use the uvloop event loop; `auto`: if it is installed.", "Process"
    )

    broker_port: int = setting(
        kind.integer(0, 65_535),
        9092,
        "Port of the broker that `inferd up` starts; 0 chooses a free port.",
        "Embedded broker",
    )
    broker_heap_mb: int = setting(
        kind.integer(128, 1_048_576), 512, "Java heap of the embedded broker, in MiB.", "Embedded broker"
    )
    registry_port: int = setting(
        kind.integer(0, 65_535),
        8081,
        "Port of the schema registry that `inferd up --registry` starts; 0 chooses a free port.",
        "Embedded broker",
    )
    cache_dir: Path = setting(
        kind.directory(),
        Path(),
        "Directory for the downloaded parts of the embedded broker.",
        "Embedded broker",
        shown_default="~/.cache/inferd",
    )

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, flags: Mapping[str, str | None] | None = None
    ) -> Settings:
        """Settings from flags (text by field name; None: not given), else environment variables, else defaults.

        An empty variable counts as not set. Raises `SettingsError` with one line for each invalid setting.
        """
        problems = unknown_names(environ, {info.variable for info in settings_table()})
        chosen: dict[str, Any] = {}
        for info in settings_table():
            given = _given(info, environ, flags or {})
            if given is not None:
                try:
                    chosen[info.field] = info.kind.read(given[1])
                except ValueError:
                    problems.append(info.problem(*given))
        if problems:
            raise SettingsError(problems)
        return cls(**machine_defaults(environ) | chosen)

    def connection(self) -> KafkaConnection:
        """Connection to the brokers."""
        return KafkaConnection(
            bootstrap_servers=self.broker or DEFAULT_BROKER,
            security_protocol=self.kafka_security_protocol,
            ssl_cafile=self.kafka_ssl_cafile,
            ssl_certfile=self.kafka_ssl_certfile,
            ssl_keyfile=self.kafka_ssl_keyfile,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=self.kafka_sasl_password,
            sasl_password_file=self.kafka_sasl_password_file,
            oauth=self._oauth() if self.kafka_sasl_mechanism == "OAUTHBEARER" else None,
        )

    def _oauth(self) -> OAuth:
        return OAuth(
            token_file=self.kafka_oauth_token_file,
            token_url=self.kafka_oauth_token_url,
            client_id=self.kafka_oauth_client_id,
            client_secret=self.kafka_oauth_client_secret,
            client_secret_file=self.kafka_oauth_client_secret_file,
            scope=self.kafka_oauth_scope,
            ssl_cafile=self.kafka_oauth_ssl_cafile,
            provider=self.kafka_oauth_provider,
        )

    def schema_registry(self) -> SchemaRegistryConnection | None:
        """Connection to the schema registry; None if there is none."""
        if self.schema_registry_url is None:
            return None
        return SchemaRegistryConnection(
            url=self.schema_registry_url,
            username=self.schema_registry_username,
            password=self.schema_registry_password,
            password_file=self.schema_registry_password_file,
            token=self.schema_registry_token,
            token_file=self.schema_registry_token_file,
            ssl_cafile=self.schema_registry_ssl_cafile,
            ssl_certfile=self.schema_registry_ssl_certfile,
            ssl_keyfile=self.schema_registry_ssl_keyfile,
            timeout_s=self.schema_registry_timeout_s,
        )

    def embedded_registry(self) -> EmbeddedRegistrySettings:
        """Settings of the schema registry of `inferd up --registry`."""
        return EmbeddedRegistrySettings(
            data_dir=self.data_dir / "registry", cache_dir=self.cache_dir, port=self.registry_port
        )

    def embedded_kafka(self) -> EmbeddedKafkaSettings:
        """Settings of the embedded broker of `inferd up`."""
        return EmbeddedKafkaSettings(
            data_dir=self.data_dir / "kafka",
            cache_dir=self.cache_dir,
            port=self.broker_port,
            heap_mb=self.broker_heap_mb,
            partitions_default=self.topic_partitions,
        )

    @property
    def group(self) -> str:
        """The consumer group: `group_id`, or the namespace by default."""
        return self.group_id or self.namespace

    def streams(self, url: str | None = None) -> StreamSettings:
        """Settings of the streams; `url` is the address of the HTTP server, if there is one."""
        return StreamSettings(
            connection=self.connection(),
            worker_id=self.worker_id,
            data_dir=self.data_dir,
            namespace=self.namespace,
            tenants=self.tenants,
            processing_guarantee=self.processing_guarantee,
            transaction_timeout_s=self.transaction_timeout_s,
            otel_endpoint=self.otel_endpoint,
            compression=self.compression,
            reply_to_allowed=self.reply_to_allowed,
            schema_registry=self.schema_registry(),
            capture_share=self.capture_share,
            quota=QuotaSettings(self.quota_requests_per_s, self.quota_bytes_per_s),
            labels_window_s=self.labels_window_s,
            predict_threads=self.predict_threads,
            kernels=self.kernels,
            url=self.http_advertised_url or url or NO_URL,
            limits=self._limits(),
            lane=LaneSettings(
                batch_rows_max=self.batch_rows_max,
                batch_bytes_max=self.batch_bytes_max,
                batch_wait_ms=self.batch_wait_ms,
                inline_ms_max=self.inline_ms_max,
                buffer_bytes_max=self.buffer_bytes_max,
                in_flight_bytes_max=self.in_flight_bytes_max,
                commit_interval_s=self.commit_interval_s,
                revoke_timeout_s=self.revoke_timeout_s,
                jobs_share=self.jobs_share,
            ),
            group=GroupSettings(
                group_id=self.group,
                instance_id=self.instance_id,
                session_timeout_s=self.session_timeout_s,
                heartbeat_interval_s=self.heartbeat_interval_s,
                rebalance_timeout_s=self.rebalance_timeout_s,
                request_timeout_s=self.request_timeout_s,
                offset_reset=self.offset_reset,
                stall_timeout_s=self.stall_timeout_s,
            ),
            routes=RouteSettings(sources=self.routes_sources, sinks=self.routes_sinks),
            topics=TopicSettings(
                create=self.topics_create,
                partitions=self.topic_partitions,
                replication=self.topic_replication,
                retention_ms=self.topic_retention_ms,
            ),
            models=ModelSettings(bytes_max=self.models_bytes_max, load_timeout_s=self.model_load_timeout_s),
            trial=TrialSettings(memory_bytes_max=self.trial_memory_bytes_max, timeout_s=self.trial_timeout_s),
            cache=CacheSettings(
                store=self.cache_store,
                ttl_max_s=self.cache_ttl_max_s,
                block_cache_bytes=self.cache_block_cache_bytes,
            ),
            monitor=MonitorSettings(mode=self.monitor, windows_h=self.monitor_windows_h),
        )

    def _limits(self) -> Limits:
        return Limits(
            message_bytes_max=self.message_bytes_max,
            result_bytes_max=self.result_bytes_max,
            batch_expanded_bytes_max=self.batch_expanded_bytes_max,
            rows_max=self.rows_max,
            features_max=self.features_max,
            values_max=self.values_max,
            depth_max=self.depth_max,
            string_chars_max=self.string_chars_max,
            headers_max=self.headers_max,
            header_bytes_max=self.header_bytes_max,
            artifact_bytes_max=self.artifact_bytes_max,
            types_allowed=self.model_types_allowed,
            job_rows_max=self.job_rows_max,
            job_messages_max=self.job_messages_max,
            job_message_rows_max=self.job_message_rows_max,
            job_chunks_max=self.job_chunks_max,
            job_chunk_rows=self.job_chunk_rows,
            job_chunk_rows_max=self.job_chunk_rows_max,
            job_chunk_bytes_max=self.job_chunk_bytes_max,
            job_attempts_max=self.job_attempts_max,
            job_labels_max=self.job_labels_max,
            job_open_max_s=self.job_open_max_s,
            job_deadline_grace_s=self.job_deadline_grace_s,
            job_retention_s=self.job_retention_s,
            jobs_open_max=self.jobs_open_max,
            jobs_rows_max=self.jobs_rows_max,
            jobs_bytes_max=self.jobs_bytes_max,
        )


def settings_table() -> tuple[SettingInfo, ...]:
    """Every setting, in the order of its section."""
    return _TABLE


def machine_defaults(environ: Mapping[str, str]) -> dict[str, Any]:
    """Defaults that depend on the machine or the process."""
    data_dir, cache_dir = default_data_dir(environ).parent, default_cache_dir(environ)
    return {"worker_id": f"{_host_name()}-{os.getpid()}", "data_dir": data_dir, "cache_dir": cache_dir}


def _given(info: SettingInfo, environ: Mapping[str, str], flags: Mapping[str, str | None]) -> tuple[str, str] | None:
    if (text := flags.get(info.field)) is not None:
        return info.flag or info.variable, text
    if text := environ.get(info.variable):
        return info.variable, text
    return None


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100] or "worker"


_TABLE = tuple(info_of(item) for item in fields(Settings))
