"""The settings of the streams, in one frozen value. The daemon parses it; nothing here reads the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inferd.schemas.connection import KafkaConnection, SchemaRegistryConnection
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.topics import DEFAULT_TENANT
from inferd.streams.inference import DEFAULT_TRIAL_LIMITS, TrialLimits

Guarantee = Literal["at_least_once", "exactly_once"]
Store = Literal["memory", "rocksdb"]
Kernels = Literal["auto", "off"]
Monitoring = Literal["off", "sampled", "all"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """Bounds of the batch lane."""

    batch_rows_max: int = 4_096
    """Records per micro-batch."""
    batch_bytes_max: int = 4 * 1_048_576
    batch_wait_ms: float = 0.0
    """How long to wait for a micro-batch to fill; 0 scores waiting records at once."""
    inline_ms_max: float = 50.0
    """A prediction that is expected to take longer runs in a thread, so that it does not delay heartbeats."""
    buffer_bytes_max: int = 32 * 1_048_576
    """Fetched but not yet scored, over all partitions."""
    in_flight_bytes_max: int = 32 * 1_048_576
    """Produced but not yet acknowledged, over all partitions."""
    commit_interval_s: float = 0.5
    revoke_timeout_s: float = 3.0
    """How long a revoked partition may take to finish its in-flight batches."""
    jobs_share: float = 0.5
    """Share of scoring time that job chunks may take while requests wait."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Membership of the consumer group."""

    group_id: str = "inferd"
    instance_id: str | None = None
    session_timeout_s: float = 10.0
    heartbeat_interval_s: float = 1.0
    rebalance_timeout_s: float = 30.0
    request_timeout_s: float = 20.0
    offset_reset: Literal["earliest", "latest"] = "earliest"
    stall_timeout_s: float = 120.0
    """The process ends if a rebalance, a recovery or a lane with work makes no progress for this long."""


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """How topics are created, and the configuration that existing ones must have."""

    create: bool = True
    partitions: int = 4
    """Partitions of every topic that is consumed or produced per partition; those of one tenant must be equal."""
    replication: int = 1
    retention_ms: int = 7 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """The topics that routes may read and write: `tenant=pattern`, or a pattern of the only tenant. In patterns, `*`
    stands for any characters."""

    sources: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """Limits of the disposable subprocess that loads and runs a model before the worker does."""

    memory_bytes_max: int = DEFAULT_TRIAL_LIMITS.memory_bytes
    timeout_s: float = DEFAULT_TRIAL_LIMITS.wall_s

    def limits(self, sizes: Limits) -> TrialLimits:
        """The limits of one trial; `sizes` limits the model."""
        return TrialLimits(self.memory_bytes_max, cpu_s=self.timeout_s, wall_s=self.timeout_s, sizes=sizes)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How much memory loaded models may take."""

    bytes_max: int = 0
    """Beyond it, versions are loaded when requests need them; 0 loads all."""
    load_timeout_s: float = 30.0
    """How long requests wait for a version to be loaded."""


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """What is counted of each model version, and how long."""

    mode: Monitoring = "sampled"
    """`sampled`: requests, rows, errors and latencies are counted, and the features and predictions of some rows;
    `all`: of all rows; `off`: nothing."""
    windows_h: int = 48
    """How long windows are kept, in hours."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The prediction cache of models whose manifest enables it."""

    store: Store = "memory"
    ttl_max_s: float = 7 * 24 * 3_600.0
    """Maximum age of an entry, and retention of the changelog."""
    block_cache_bytes: int = 64 * 1_048_576
    """RocksDB block cache, shared by all tables and partitions."""


@dataclass(frozen=True, slots=True)
class TenantRates:
    """A rate for every tenant, and others for some by name; 0: unlimited."""

    default: float = 0.0
    by_tenant: tuple[tuple[str, float], ...] = ()

    def of(self, tenant: str) -> float:
        """The rate of one tenant."""
        return dict(self.by_tenant).get(tenant, self.default)


UNLIMITED = TenantRates()


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """What tenants may have scored by all workers together."""

    requests_per_s: TenantRates = UNLIMITED
    bytes_per_s: TenantRates = UNLIMITED


NO_URL = "http://127.0.0.1"
"""URL of a worker without an HTTP server."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """All settings of the streams."""

    connection: KafkaConnection
    worker_id: str
    data_dir: Path
    namespace: str = "inferd"
    tenants: tuple[str, ...] = (DEFAULT_TENANT,)
    processing_guarantee: Guarantee = "at_least_once"
    transaction_timeout_s: float = 15.0
    """Timeout after which the broker aborts an idle transaction (`transaction.timeout.ms`, `exactly_once`)."""
    url: str = NO_URL
    """HTTP URL of this worker for the other workers of the group."""
    otel_endpoint: str | None = None
    """OTLP/HTTP endpoint of the OpenTelemetry collector; None disables tracing."""
    compression: Compression = "none"
    """Compression of results and dead letters."""
    reply_to_allowed: tuple[str, ...] = ()
    """Topics that a `reply-to` header may name."""
    schema_registry: SchemaRegistryConnection | None = None
    """Where routes find and register schemas."""
    capture_share: float = 0.0
    """Share of the requests that are captured with their features and outputs, 0 to 1."""
    labels_window_s: float = 0.0
    """How long predictions wait for the labels of their requests; 0: they do not."""
    predict_threads: int = 1
    kernels: Kernels = "auto"
    """`auto`: compiled kernels read rows and score models, as far as they cover them; `off`: they are not used."""
    limits: Limits = DEFAULT_LIMITS
    lane: LaneSettings = field(default_factory=LaneSettings)
    group: GroupSettings = field(default_factory=GroupSettings)
    topics: TopicSettings = field(default_factory=TopicSettings)
    routes: RouteSettings = field(default_factory=RouteSettings)
    trial: TrialSettings = field(default_factory=TrialSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    quota: QuotaSettings = field(default_factory=QuotaSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
