"""The embedded broker: a real Apache Kafka, one node on the loopback interface, with nothing to install."""

from daemon.broker.data_dir import living_broker
from daemon.broker.errors import (
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
from daemon.broker.kafka import EmbeddedKafka
from daemon.broker.settings import EmbeddedKafkaSettings

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
