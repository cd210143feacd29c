"""The embedded broker: a single Apache Kafka node on the loopback interface. Needs no Java and no Docker."""

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
from inferd.daemon.broker.settings import EmbeddedKafkaSettings

__all__ = [
    "BrokerError",
    "BrokerSettingError",
    "BrokerStartError",
    "BrokerUnavailableError",
    "DataDirInUseError",
    "DataDirUnusableError",
    "EmbeddedKafka",
    "EmbeddedKafkaSettings",
    "JarsRejectedError",
    "JarsUnavailableError",
    "PortTakenError",
    "running_broker_address",
]
