"""TLS and SASL with a real broker: each cause of failure has its own error, and renewed files need no restart."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inferd import (
    AccessDeniedError,
    BrokerUnreachableError,
    Client,
    KafkaConnection,
    ServerError,
    TlsError,
)
from inferd.daemon.cluster import reach
from inferd.streams.connection.unreachable import setting_name
from tests.fixtures.certificates import Pair
from tests.fixtures.secure_broker import SecureBroker
from tests.fixtures.workers import Cluster, StartWorker, until


def wrong_connections(broker: SecureBroker) -> dict[str, KafkaConnection]:
    """Connections that the broker or the client rejects, by case."""
    stranger, expired = broker.strangers.issue("stranger"), broker.authority.issue("old", days=0)
    files = {pair: {"ssl_certfile": str(pair.cert), "ssl_keyfile": str(pair.key)} for pair in (stranger, expired)}

    def at(listener: str, of: str) -> KafkaConnection:
        return replace(broker.connection(of), bootstrap_servers=broker.address(listener))

    return {
        "expired": broker.connection("EXPIRED"),
        "other host": broker.connection("ELSEWHERE"),
        "unknown authority": broker.connection("TLS", ssl_cafile=str(broker.strangers.cert)),
        "no client certificate": broker.connection("MUTUAL", ssl_certfile=None, ssl_keyfile=None),
        "expired client certificate": broker.connection("MUTUAL", **files[expired]),
        "unknown client certificate": broker.connection("MUTUAL", **files[stranger]),
        "plaintext to TLS": at("TLS", "PLAINTEXT"),
        "TLS to plaintext": at("PLAINTEXT", "TLS"),
        "SASL to plaintext": at("PLAINTEXT", "SASL"),
        "plaintext to SASL": at("SASL", "PLAINTEXT"),
        "mechanism": broker.connection("SASL", sasl_mechanism="SCRAM-SHA-512"),
        "password": broker.connection("SASLTLS", sasl_password="wrong"),
    }


EXPECTED: dict[str, tuple[type[ServerError], str]] = {
    "expired": (TlsError, "has expired: renew it there"),
    "other host": (TlsError, "for another host name"),
    "unknown authority": (TlsError, "of an unknown authority"),
    "no client certificate": (TlsError, "asks for a client certificate, and we have none"),
    "expired client certificate": (TlsError, "refuses our client certificate"),
    "unknown client certificate": (TlsError, "refuses our client certificate"),
    "plaintext to TLS": (TlsError, "speaks TLS, and we do not"),
    "TLS to plaintext": (TlsError, "does not answer the TLS handshake"),
    "SASL to plaintext": (AccessDeniedError, "does not use SASL, and we do"),
    "plaintext to SASL": (BrokerUnreachableError, "one with another security protocol"),
    "mechanism": (AccessDeniedError, "does not offer the SASL mechanism SCRAM-SHA-512"),
    "password": (AccessDeniedError, "refuses our user name or password"),
}


async def test_each_cause_has_its_own_error(secure_broker: SecureBroker) -> None:
    connections = wrong_connections(secure_broker)
    assert connections.keys() == EXPECTED.keys()
    for case, connection in connections.items():
        kind, words = EXPECTED[case]
        with pytest.raises(BrokerUnreachableError) as of_the_daemon:
            await reach(connection, 20)
        assert words in of_the_daemon.value.message, case
        with pytest.raises(ServerError) as of_the_client:
            async with Client(connection, connect_timeout_s=20):
                pass
        assert type(of_the_client.value) is kind, (case, of_the_client.value)
        assert words in of_the_client.value.message, (case, of_the_client.value)


@pytest.mark.parametrize("listener", ["TLS", "MUTUAL", "SASL", "SASLTLS"])
async def test_the_right_connection_works(secure_broker: SecureBroker, listener: str, tmp_path: Path) -> None:
    connection = secure_broker.connection(listener)
    if connection.sasl_password is not None:
        file = tmp_path / "password"
        file.write_text(f"{connection.sasl_password}\n")
        connection = replace(connection, sasl_password=None, sasl_password_file=str(file))
    await reach(connection, 20)
    async with Client(connection, connect_timeout_s=20):
        pass


def environment(connection: KafkaConnection) -> dict[str, str]:
    """The settings of a connection."""
    options = {name: getattr(connection, name) for name in KafkaConnection.__dataclass_fields__}
    given = {setting_name(name): value for name, value in options.items() if value and name != "bootstrap_servers"}
    if not connection.security_protocol.startswith("SASL"):
        del given["INFERD_KAFKA_SASL_MECHANISM"]
    return {"INFERD_BROKER": connection.bootstrap_servers, **given}


def test_a_command_prints_the_cause_and_the_setting(secure_broker: SecureBroker) -> None:
    connection = wrong_connections(secure_broker)["password"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    command = [sys.executable, "-m", "inferd.daemon.cli", "topics", "list"]
    done = subprocess.run(
        command, env=environ | environment(connection), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert "refuses our user name or password" in done.stderr
    assert "INFERD_KAFKA_SASL_PASSWORD" in done.stderr


def test_a_worker_uses_a_client_certificate_that_was_renewed(
    secure_broker: SecureBroker, namespace: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    """It reports that its certificate is rejected, and connects once the files are replaced."""
    own = Pair(tmp_path / "client.pem", tmp_path / "client.key")
    own.replace_by(secure_broker.authority.issue("worker-old", days=0))
    connection = secure_broker.connection("MUTUAL", ssl_certfile=str(own.cert), ssl_keyfile=str(own.key))
    cluster = Cluster(secure_broker.address("PLAINTEXT"), namespace)
    worker = start_worker(cluster, environ=environment(connection))

    def reasons() -> str:
        return str((worker.get("/readyz")[1] or {}).get("reasons"))

    until(lambda: "refuses our client certificate" in reasons(), 60, "a worker that reports why it waits")
    assert "refuses our client certificate" in worker.text()
    own.replace_by(secure_broker.authority.issue("worker-new"))
    until(lambda: "no model is ready" in reasons() and "waiting" not in reasons(), 60, "a worker that has connected")
    assert worker.stop() == 0
