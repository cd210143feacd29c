"""What the client raises beside the errors that a worker answers with.

ServerError
├── BrokerUnreachableError   no broker answers, or it stopped answering; also a ConnectionError
│   └── TlsError             TLS fails: a certificate, or one side does not speak it
├── AccessDeniedError        the cluster refuses these credentials; also a PermissionError
├── TopicNotFoundError       a topic of the tenant is not there
├── ResultTimeoutError       no result came in time; also a TimeoutError
└── ClientClosedError        the client is not started, or closed
VersionExistsError           a model version is there already, with other bytes or another manifest
"""

from __future__ import annotations

from aiokafka import errors as kafka

from inferd.schemas.connection import BrokerUnreachableError, KafkaConnection
from inferd.schemas.errors import ModelServingError, ServerError, TooLargeError
from inferd.schemas.models import VersionExistsError
from inferd.streams.connection import Kind, reason_of, why_unreachable

__all__ = [
    "AccessDeniedError",
    "BrokerUnreachableError",
    "ClientClosedError",
    "ResultTimeoutError",
    "TlsError",
    "TopicNotFoundError",
    "VersionExistsError",
    "of_kafka",
    "topic_not_found",
    "unconnected",
]


class TlsError(BrokerUnreachableError):
    """TLS fails: one side refuses the other's certificate, or does not speak TLS; the message says which and why."""


class AccessDeniedError(ServerError, PermissionError):
    """The cluster refuses these credentials, or what they ask for."""


class TopicNotFoundError(ServerError):
    """A topic of the tenant is not there."""


class ResultTimeoutError(ServerError, TimeoutError):
    """No result came in time; the request may still be answered later."""


class ClientClosedError(ServerError):
    """The client is not started, or closed."""


_UNREACHABLE = (
    kafka.KafkaConnectionError,
    kafka.KafkaTimeoutError,
    kafka.NoBrokersAvailable,
    kafka.NodeNotReadyError,
    kafka.RequestTimedOutError,
    TimeoutError,
    OSError,
)
_OF_KIND: dict[Kind, type[ServerError]] = {"tls": TlsError, "denied": AccessDeniedError}
_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError, kafka.RecordTooLargeError)
_DENIED = (
    kafka.ClusterAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.TopicAuthorizationFailedError,
)
_SASL = (kafka.IllegalSaslStateError, kafka.SaslAuthenticationFailed, kafka.UnsupportedSaslMechanismError)


def topic_not_found(topic: str, tenant: str) -> TopicNotFoundError:
    """The error for a `topic` that the cluster does not have, or does not show."""
    return TopicNotFoundError(
        f"topic {topic} is not there. Create the tenant's topics with: inferd topics create --tenant {tenant}"
        " (a worker that serves the tenant creates them too), or check broker, namespace and tenant"
    )


def unconnected(connection: KafkaConnection) -> str | None:
    """Which broker cannot be reached now, and why; None where all can."""
    found = why_unreachable(connection)
    return None if found is None else f"{found[0]} {found[1].text(_option)}"


def of_kafka(error: BaseException, doing: str, connection: KafkaConnection) -> ModelServingError:
    """The typed error for what aiokafka raised while `doing` something."""
    if isinstance(error, ModelServingError):
        return error
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, _DENIED):
        servers = connection.bootstrap_servers
        return AccessDeniedError(f"{doing}: {servers} refuses it ({words}). Check credentials and ACLs")
    if isinstance(error, _TOO_LARGE):
        return TooLargeError(f"{doing}: the record is larger than the topic allows ({words}); see max.message.bytes")
    if isinstance(error, (*_UNREACHABLE, *_SASL)):
        return _of_connecting(error, doing, connection, words)
    return ServerError(f"{doing}: {words}")


def _of_connecting(error: BaseException, doing: str, connection: KafkaConnection, words: str) -> ServerError:
    servers, reason = connection.bootstrap_servers, reason_of(error, connection)
    address, reason = why_unreachable(connection) or (servers, reason)
    if reason is None:
        told = words
    elif reason.kind in _OF_KIND:
        return _OF_KIND[reason.kind](f"{doing}: {address} {reason.text(_option)}")
    else:
        told = f"{address} {reason.text(_option)}"
    return BrokerUnreachableError(
        f"{doing}: no Kafka broker answers at {servers} ({told}). Is it running? `inferd up` starts one on this machine"
    )


def _option(name: str) -> str:
    return f"{name} of KafkaConnection"
