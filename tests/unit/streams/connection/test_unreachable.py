"""The explanation of each exception of a connection attempt. tests/delivery/test_tls.py has those of a real broker."""

from __future__ import annotations

import ssl
from asyncio import IncompleteReadError

import pytest
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    NodeNotReadyError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.oauth import OAuth
from inferd.streams.connection.unreachable import reason_of, setting_name

PLAIN = KafkaConnection()
TLS = KafkaConnection(security_protocol="SSL")
MUTUAL = KafkaConnection(security_protocol="SSL", ssl_certfile="cert.pem")
SASL = KafkaConnection(security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512")


def unverified(code: int, said: str = "why") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, said
    return error


def alert(name: str) -> ssl.SSLError:
    error = ssl.SSLError(1, name)
    error.reason = name
    return error


def closed(cause: BaseException | None = None) -> KafkaConnectionError:
    error = KafkaConnectionError("Connection at kafka:9092 closed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "connection", "kind", "words"),
    [
        (unverified(10), TLS, "tls", "has expired"),
        (unverified(9), TLS, "tls", "not valid yet"),
        (unverified(62, "not valid for 'kafka'."), TLS, "tls", "for another host name (not valid for 'kafka')"),
        (unverified(64), TLS, "tls", "for another host name"),
        (unverified(18), TLS, "tls", "of an unknown authority (why): check INFERD_KAFKA_SSL_CAFILE"),
        (unverified(20), TLS, "tls", "of an unknown authority"),
        (unverified(23), TLS, "tls", "cannot be verified"),
        (closed(alert("TLSV13_ALERT_CERTIFICATE_REQUIRED")), TLS, "tls", "asks for a client certificate, and we have"),
        (closed(alert("SSLV3_ALERT_BAD_CERTIFICATE")), TLS, "tls", "asks for a client certificate"),
        (
            closed(alert("SSLV3_ALERT_CERTIFICATE_UNKNOWN")),
            MUTUAL,
            "tls",
            "refuses our client certificate (",
        ),
        (closed(alert("TLSV1_ALERT_UNKNOWN_CA")), MUTUAL, "tls", "(unknown ca): check INFERD_KAFKA_SSL_CERTFILE"),
        (alert("TLSV1_ALERT_PROTOCOL_VERSION"), TLS, "tls", "fails the TLS handshake (protocol version)"),
        (alert("WRONG_VERSION_NUMBER"), TLS, "tls", "does not answer the TLS handshake"),
        (ConnectionResetError(), TLS, "tls", "does not answer the TLS handshake"),
        (ConnectionResetError(), PLAIN, "unreachable", "closes the connection"),
        (closed(IncompleteReadError(b"\2\2P", 0x15030300)), PLAIN, "tls", "speaks TLS, and we do not"),
        (closed(IncompleteReadError(b"", 4)), PLAIN, "unreachable", "it may not be a Kafka listener"),
        (closed(), PLAIN, "unreachable", "check INFERD_KAFKA_SECURITY_PROTOCOL"),
        (
            SaslAuthenticationFailed("no"),
            SASL,
            "denied",
            "refuses our user name or password (no): check",
        ),
        (UnsupportedSaslMechanismError(), SASL, "denied", "does not offer the SASL mechanism SCRAM-SHA-512"),
        (IllegalSaslStateError(), SASL, "denied", "does not use SASL, and we do"),
        (ConnectionRefusedError(), PLAIN, "unreachable", "nothing listens there"),
        (closed(ConnectionRefusedError()), PLAIN, "unreachable", "nothing listens there"),
        (TimeoutError(), PLAIN, "unreachable", "does not answer in time"),
        (OSError(113, "No route to host"), PLAIN, "unreachable", "cannot be reached (No route to host)"),
    ],
)
def test_the_reason(error: BaseException, connection: KafkaConnection, kind: str, words: str) -> None:
    reason = reason_of(error, connection)
    assert reason is not None
    assert (reason.kind, words in reason.text(setting_name)) == (kind, True), reason.text(setting_name)


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError("t"), NodeNotReadyError(), ValueError()])
def test_exceptions_that_do_not_concern_connecting_have_no_reason(error: BaseException) -> None:
    assert reason_of(error, PLAIN) is None


def test_the_settings_exist() -> None:
    from inferd.daemon.settings.settings import settings_table

    known = {info.variable for info in settings_table()}
    options = {field for field in KafkaConnection.__dataclass_fields__ if field not in ("bootstrap_servers", "oauth")}
    options |= {f"oauth_{field}" for field in OAuth.__dataclass_fields__}
    assert {setting_name(option) for option in options} <= known
