"""The embedded broker: a real Apache Kafka, one node on the loopback interface, with nothing to install."""

from inferd.daemon.broker.data_dir import living_broker
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
    "living_broker",
]
