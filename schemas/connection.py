"""Connection parameters of a Kafka cluster and a schema registry, shared by the daemon, the client and the commands."""

from __future__ import annotations

import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inferd.schemas.errors import ServerError
from inferd.schemas.oauth import OAuth


class BrokerUnreachableError(ServerError, ConnectionError):
    """No broker is reachable; the message says why."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Bootstrap servers (`host:port,…`), TLS and SASL of a cluster.

    `ssl_cafile`, `ssl_certfile` and `ssl_keyfile` are PEM files: the CA that signed the brokers' certificates (default:
    the system's trust store), the client certificate for mutual TLS, and its key. `sasl_password_file` overrides
    `sasl_password`. `oauth` says where the tokens of OAUTHBEARER come from. All files are read again before each
    connection, so renewed ones take effect.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    sasl_password_file: str | None = None
    oauth: OAuth | None = None

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, or None without TLS. `OSError` or `ssl.SSLError` if a file cannot be loaded."""
        if "SSL" not in self.security_protocol.split("_"):
            return None
        return client_context(self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)

    def aiokafka_options(self) -> dict[str, Any]:
        """Keyword arguments of all aiokafka clients but for the tokens of OAUTHBEARER. `OSError` or `ssl.SSLError` if a
        file cannot be loaded."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        if (context := self.ssl_context()) is not None:
            options["ssl_context"] = context
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
        if self.security_protocol.startswith("SASL") and self.sasl_mechanism != "OAUTHBEARER":
            options["sasl_plain_username"] = self.sasl_username
            file = self.sasl_password_file
            options["sasl_plain_password"] = self.sasl_password if file is None else read_password(file)
        return options


@dataclass(frozen=True, slots=True)
class SchemaRegistryConnection:
    """Address of a schema registry with Confluent's API, authentication and TLS.

    `username` and `password` are for basic authentication, `token` is a bearer token. Files override the values, and
    are read again for each request. The certificates are those of `KafkaConnection`, for an `https` address.
    """

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    timeout_s: float = 10.0

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, or None for an `http` address. `OSError` or `ssl.SSLError` if a file cannot be loaded."""
        if not self.url.startswith("https:"):
            return None
        return client_context(self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)

    def authorization(self) -> str | None:
        """The value of the header `Authorization`; `OSError` if a file cannot be read."""
        token = self.token if self.token_file is None else read_password(self.token_file)
        if token:
            return f"Bearer {token}"
        if self.username is None:
            return None
        password = self.password if self.password_file is None else read_password(self.password_file)
        credentials = f"{self.username}:{password or ''}"
        return f"Basic {b64encode(credentials.encode()).decode()}"


def client_context(cafile: str | None, certfile: str | None, keyfile: str | None) -> ssl.SSLContext:
    """A TLS context of clients from PEM files. `OSError` or `ssl.SSLError` if a file cannot be loaded."""
    context = ssl.create_default_context(cafile=cafile)
    # Python 3.13 refuses certificates without an authority key identifier. Kafka's own clients accept them, and so do
    # earlier versions of Python: a certificate works on all of them or on none.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certfile:
        context.load_cert_chain(certfile, keyfile)
    return context


def read_password(path: str) -> str:
    """The first line of a password file; `OSError` if it cannot be read."""
    return Path(path).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
