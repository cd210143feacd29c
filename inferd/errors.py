"""What the client raises beside the errors that a worker answers with.

ServerError
├── BrokerUnreachableError   no broker answers, or it stopped answering; also a ConnectionError
├── AccessDeniedError        the cluster refuses these credentials; also a PermissionError
├── TopicNotFoundError       a topic of the tenant is not there
├── ResultTimeoutError       no result came in time; also a TimeoutError
├── VersionExistsError       a model version is there already, with other bytes or another manifest
└── ClientClosedError        the client is not started, or closed
"""

from __future__ import annotations

from aiokafka import errors as kafka

from schemas.errors import ModelServingError, ServerError, TooLargeError


class BrokerUnreachableError(ServerError, ConnectionError):
    """No broker answers, or it stopped answering."""


class AccessDeniedError(ServerError, PermissionError):
    """The cluster refuses these credentials, or what they ask for."""


class TopicNotFoundError(ServerError):
    """A topic of the tenant is not there."""


class ResultTimeoutError(ServerError, TimeoutError):
    """No result came in time; the request may still be answered later."""


class VersionExistsError(ServerError):
    """A model version is there already, with other bytes or another manifest."""


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
_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError, kafka.RecordTooLargeError)
_DENIED = (
    kafka.ClusterAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.IllegalSaslStateError,
    kafka.SaslAuthenticationFailed,
    kafka.TopicAuthorizationFailedError,
    kafka.UnsupportedSaslMechanismError,
)


def topic_not_found(topic: str, tenant: str) -> TopicNotFoundError:
    """The error for a `topic` that the cluster does not have, or does not show."""
    return TopicNotFoundError(
        f"topic {topic} is not there. Create the tenant's topics with: inferd topics create --tenant {tenant}"
        " (a worker that serves the tenant creates them too), or check broker, namespace and tenant"
    )


def of_kafka(error: BaseException, doing: str, bootstrap_servers: str) -> ModelServingError:
    """The typed error for what aiokafka raised while `doing` something."""
    if isinstance(error, ModelServingError):
        return error
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, _DENIED):
        return AccessDeniedError(f"{doing}: {bootstrap_servers} refuses it ({words}). Check credentials and ACLs")
    if isinstance(error, _TOO_LARGE):
        return TooLargeError(f"{doing}: the record is larger than the topic allows ({words}); see max.message.bytes")
    if isinstance(error, _UNREACHABLE):
        return BrokerUnreachableError(
            f"{doing}: no Kafka broker answers at {bootstrap_servers} ({words})."
            " Is it running? `inferd up` starts one on this machine"
        )
    return ServerError(f"{doing}: {words}")
