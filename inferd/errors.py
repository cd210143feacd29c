"""Errors of the client, in addition to the error results of workers.

ServerError
├── BrokerUnreachableError   no broker answers, or it stopped answering; also a ConnectionError
│   └── TlsError             TLS fails: a certificate is rejected, or one side does not use TLS
├── AccessDeniedError        the cluster rejects the credentials or denies access; also a PermissionError
├── TopicNotFoundError       a topic of the tenant does not exist
├── ResultTimeoutError       no result arrived in time; also a TimeoutError
└── ClientClosedError        the client is not started, or closed
VersionExistsError           a model version exists already, with other bytes or another manifest
AliasChangedError            an alias was changed by somebody else in the meantime
NoEarlierTargetError         an alias has no earlier target to roll back to
"""

from __future__ import annotations

from aiokafka import errors as kafka

from inferd.schemas.connection import BrokerUnreachableError, KafkaConnection
from inferd.schemas.errors import ModelServingError, ServerError, TooLargeError
from inferd.schemas.models import AliasChangedError, NoEarlierTargetError, VersionExistsError
from inferd.streams.connection import Kind, reason_of, why_unreachable

__all__ = [
    "AccessDeniedError",
    "AliasChangedError",
    "BrokerUnreachableError",
    "ClientClosedError",
    "NoEarlierTargetError",
    "ResultTimeoutError",
    "TlsError",
    "TopicNotFoundError",
    "VersionExistsError",
    "topic_not_found",
    "typed_kafka_error",
    "unreachable_reason",
]


class TlsError(BrokerUnreachableError):
    """TLS fails: a certificate is rejected, or one side does not use TLS; the message says which and why."""


class AccessDeniedError(ServerError, PermissionError):
    """The cluster rejects the credentials, or denies them access."""


class TopicNotFoundError(ServerError):
    """A topic of the tenant does not exist."""


class ResultTimeoutError(ServerError, TimeoutError):
    """No result arrived in time; the request may still be answered later."""


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
    """The error for a `topic` that does not exist or is not visible to these credentials."""
    return TopicNotFoundError(
        f"topic {topic} does not exist. Create the tenant's topics with: inferd topics create --tenant {tenant}"
        " (a worker that serves the tenant creates them too), or check broker, namespace and tenant"
    )


def unreachable_reason(connection: KafkaConnection) -> str | None:
    """The broker that cannot be reached now, and why; None if all can."""
    found = why_unreachable(connection)
    return None if found is None else f"{found[0]} {found[1].text(_option)}"


def typed_kafka_error(error: BaseException, doing: str, connection: KafkaConnection) -> ModelServingError:
    """The typed error for an exception of aiokafka; `doing` names the operation."""
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
        cause = words
    elif reason.kind in _OF_KIND:
        return _OF_KIND[reason.kind](f"{doing}: {address} {reason.text(_option)}")
    else:
        cause = f"{address} {reason.text(_option)}"
    return BrokerUnreachableError(
        f"{doing}: no Kafka broker answers at {servers} ({cause}). Is it running? `inferd up` starts one locally"
    )


def _option(name: str) -> str:
    if name.startswith("oauth_"):
        return f"{name.removeprefix('oauth_')} of OAuth"
    return f"{name} of KafkaConnection"
