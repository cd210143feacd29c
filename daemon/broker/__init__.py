"""The embedded broker and schema registry, on the loopback interface. They need no Java and no Docker."""

from inferd.daemon.broker.cluster import NODES_MAX, EmbeddedCluster
from inferd.daemon.broker.data_dir import running_broker_address
from inferd.daemon.broker.errors import (
    BrokerError,
    BrokerSettingError,
    BrokerStartError,
    BrokerUnavailableError,
    DataDirInUseError,
    DataDirUnusableError,
    JarsRejectedError,
    JarsUnavailableError,
    PortTakenError,
)
from inferd.daemon.broker.kafka import EmbeddedKafka
from inferd.daemon.broker.registry import EmbeddedRegistry, EmbeddedRegistrySettings
from inferd.daemon.broker.settings import EmbeddedKafkaSettings

__all__ = [
    "NODES_MAX",
    "BrokerError",
    "BrokerSettingError",
    "BrokerStartError",
    "BrokerUnavailableError",
    "DataDirInUseError",
    "DataDirUnusableError",
    "EmbeddedCluster",
    "EmbeddedKafka",
    "EmbeddedKafkaSettings",
    "EmbeddedRegistry",
    "EmbeddedRegistrySettings",
    "JarsRejectedError",
    "JarsUnavailableError",
    "PortTakenError",
    "running_broker_address",
]
