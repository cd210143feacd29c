"""Explains why a broker could not be reached, from exceptions of sockets, TLS, SASL and aiokafka.

The alerts are those of Java's TLS, which Kafka uses, and the verification codes those of OpenSSL (`x509_vfy.h`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaTimeoutError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from inferd.schemas.connection import KafkaConnection
from inferd.streams.connection.oauth import TokenError

Kind = Literal["unreachable", "tls", "denied"]

CLOSED = (KafkaConnectionError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError, EOFError)
NO_ANSWER = (TimeoutError, KafkaTimeoutError, RequestTimedOutError)
EXPIRED, NOT_YET_VALID = 10, 9
NAME_MISMATCHES = frozenset({62, 63, 64})
UNKNOWN_AUTHORITIES = frozenset({2, 18, 19, 20, 21, 27})
CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
TLS_ALERT = 0x1503
"""How a TLS alert begins; aiokafka takes it for the length of an answer."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a broker could not be reached."""

    kind: Kind
    words: str
    """They follow the address of the broker."""
    options: tuple[str, ...] = ()
    """Fields of `KafkaConnection` to check."""

    def text(self, name: Callable[[str], str]) -> str:
        """The text, and what to check, with the option names that the reader knows."""
        return f"{self.words}: check {' and '.join(map(name, self.options))}" if self.options else self.words


def setting_name(option: str) -> str:
    """The setting of the daemon for a field of `KafkaConnection`."""
    return "INFERD_KAFKA_" + option.upper()


def reason_of(error: BaseException, connection: KafkaConnection) -> Reason | None:
    """The reason in an exception, or in the first of its causes that has one; None if it does not concern a
    connection."""
    found = list(causes(error))
    reasons = [_reason(each, connection) for each in found]
    reasons += [_vague_reason(each, connection) for each in reversed(found)]
    return next((reason for reason in reasons if reason is not None), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and the chain of its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _reason(error: BaseException, connection: KafkaConnection) -> Reason | None:
    if isinstance(error, ssl.SSLError):
        return tls_reason(error, has_certificate=connection.ssl_certfile is not None)
    if isinstance(error, asyncio.IncompleteReadError) and (error.expected or 0) >> 16 == TLS_ALERT:
        return Reason("tls", "speaks TLS, and we do not", ("security_protocol",))
    if isinstance(error, ConnectionRefusedError):
        return Reason("unreachable", "refuses connections: nothing listens there")
    return _sasl_reason(error, connection)


def tls_reason(error: ssl.SSLError, *, has_certificate: bool) -> Reason:
    """The reason in an exception of TLS. `has_certificate`: whether there is a client certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(error)
    return _tls_failure(error, has_certificate=has_certificate)


def _unverified(error: ssl.SSLCertVerificationError) -> Reason:
    code, said = error.verify_code, error.verify_message.rstrip(".")
    if code == EXPIRED:
        return Reason("tls", "shows a certificate that has expired: renew it there")
    if code == NOT_YET_VALID:
        return Reason("tls", "shows a certificate that is not valid yet: compare the clocks of both machines")
    if code in NAME_MISMATCHES:
        return Reason("tls", f"shows a certificate for another host name ({said}): check the address")
    if code in UNKNOWN_AUTHORITIES:
        return Reason("tls", f"shows a certificate of an unknown authority ({said})", ("ssl_cafile",))
    return Reason("tls", f"shows a certificate that cannot be verified ({said})", ("ssl_cafile",))


def _tls_failure(error: ssl.SSLError, *, has_certificate: bool) -> Reason:
    alert = str(error.reason or error)
    said = alert.partition("ALERT_")[2].replace("_", " ").lower()
    if said and any(name in alert for name in CERTIFICATE_ALERTS):
        options = ("ssl_certfile", "ssl_keyfile")
        if not has_certificate:
            return Reason("tls", "asks for a client certificate, and we have none", options)
        return Reason("tls", f"refuses our client certificate ({said})", options)
    if alert in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING"}:
        return _no_tls()
    return Reason("tls", f"fails the TLS handshake ({said or alert})", ("security_protocol", "ssl_cafile"))


def _no_tls() -> Reason:
    return Reason("tls", "does not answer the TLS handshake, as a listener without TLS does", ("security_protocol",))


def _sasl_reason(error: BaseException, connection: KafkaConnection) -> Reason | None:
    if isinstance(error, TokenError):
        return Reason("denied", f"was not asked: {error.words}", error.options)
    if isinstance(error, SaslAuthenticationFailed):
        said = str(error).rpartition("SaslAuthenticationFailed: ")[2]
        if connection.sasl_mechanism == "OAUTHBEARER":
            return Reason("denied", f"refuses our token ({said}): compare its issuer, audience and expiry")
        return Reason("denied", f"refuses our user name or password ({said})", ("sasl_username", "sasl_password"))
    if isinstance(error, UnsupportedSaslMechanismError):
        words = f"does not offer the SASL mechanism {connection.sasl_mechanism}"
        return Reason("denied", words, ("sasl_mechanism",))
    if isinstance(error, IllegalSaslStateError):
        return Reason("denied", "does not use SASL, and we do", ("security_protocol",))
    return None


def _vague_reason(error: BaseException, connection: KafkaConnection) -> Reason | None:
    """The reason in an exception if none of its causes is more specific."""
    if isinstance(error, ConnectionResetError) and "SSL" in connection.security_protocol.split("_"):
        return _no_tls()
    if isinstance(error, NO_ANSWER):
        return Reason("unreachable", "does not answer in time")
    if isinstance(error, CLOSED):
        words = "closes the connection; it may not be a Kafka listener, or one with another security protocol"
        return Reason("unreachable", words, ("security_protocol",))
    if isinstance(error, OSError):
        return Reason("unreachable", f"cannot be reached ({error.strerror or str(error) or type(error).__name__})")
    return None
