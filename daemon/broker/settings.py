"""Settings of the embedded broker: one frozen value, validated when it is constructed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from inferd.daemon.broker.errors import BrokerSettingError
from inferd.daemon.loopback import is_loopback

HEAP_MB_MIN = 128
LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR")
RESERVED_KEYS = frozenset(
    {
        "advertised.listeners",
        "controller.listener.names",
        "controller.quorum.voters",
        "listeners",
        "log.dirs",
        "node.id",
        "process.roles",
    }
)


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`$INFERD_DATA_DIR/kafka`, else a directory below `$XDG_DATA_HOME`."""
    if chosen := environ.get("INFERD_DATA_DIR"):
        return Path(chosen).expanduser() / "kafka"
    return _user_dir(environ, "XDG_DATA_HOME", ".local/share") / "kafka"


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`$INFERD_CACHE_DIR`, else a directory below `$XDG_CACHE_HOME`."""
    if chosen := environ.get("INFERD_CACHE_DIR"):
        return Path(chosen).expanduser()
    return _user_dir(environ, "XDG_CACHE_HOME", ".cache")


def _user_dir(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    chosen = environ.get(variable)
    return (Path(chosen) if chosen else Path.home() / below_home) / "inferd"


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """The place of a broker in a cluster."""

    number: int
    cluster_id: str
    controllers: Mapping[int, int]
    """The port of each node's controller, by the number of the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedKafkaSettings:
    """How the embedded broker runs.

    `port` 0 chooses a free port. `extra` overrides inferd's server properties. Raises BrokerSettingError.
    """

    data_dir: Path = field(default_factory=default_data_dir)
    cache_dir: Path = field(default_factory=default_cache_dir)
    host: str = "127.0.0.1"
    port: int = 9092
    heap_mb: int = 512
    partitions_default: int = 4
    log_level: str = "INFO"
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    startup_cache: bool = True
    node: ClusterNode | None = None
    """None: the only node, which chooses the port of its controller."""
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        _check_path("data_dir", self.data_dir, ",%$")  # special characters in Kafka's and log4j's configuration
        _check_path("cache_dir", self.cache_dir, os.pathsep)  # separates the jars of a class path
        _check("host", self.host, is_loopback(self.host), "a loopback address: the broker has no authentication")
        _check("port", self.port, 0 <= self.port <= 65535, "0 (any free port) to 65535")
        _check("heap_mb", self.heap_mb, self.heap_mb >= HEAP_MB_MIN, f"{HEAP_MB_MIN} or more")
        _check("partitions_default", self.partitions_default, self.partitions_default >= 1, "1 or more")
        _check("log_level", self.log_level, self.log_level in LOG_LEVELS, ", ".join(LOG_LEVELS))
        _check("start_timeout_s", self.start_timeout_s, self.start_timeout_s > 0, "above 0")
        _check("stop_timeout_s", self.stop_timeout_s, self.stop_timeout_s > 0, "above 0")
        for key in RESERVED_KEYS & self.extra.keys():
            raise BrokerSettingError(f"extra[{key!r}] cannot be set: the embedded broker sets it")


def _check(name: str, value: object, fits: bool, allowed: str) -> None:
    if not fits:
        raise BrokerSettingError(f"{name} = {value!r} is not allowed: it must be {allowed}")


def _check_path(name: str, path: Path, forbidden: str) -> None:
    text = str(path.absolute())
    fits = text.isprintable() and not any(character in text for character in forbidden)
    _check(name, text, fits, f"a path without {' '.join(forbidden)} and control characters")
