"""TLS, SASL and OAuth with a real broker: each cause of failure has its own error; renewed files need no restart."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.protocol.metadata import MetadataRequest

from inferd import (
    AccessDeniedError,
    BrokerUnreachableError,
    Client,
    KafkaConnection,
    OAuth,
    ServerError,
    TlsError,
)
from inferd.daemon.cluster import bootstrap_addresses, connect, reach
from inferd.streams.connection.unreachable import setting_name
from tests.fixtures.certificates import Pair
from tests.fixtures.identity import IdentityProvider
from tests.fixtures.secure_broker import SESSION_S, SecureBroker
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel, until


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
        "password of SCRAM": broker.connection("SCRAM", sasl_password="wrong"),
        "user of SCRAM": broker.connection("SCRAMTLS", sasl_username="bob", sasl_mechanism="SCRAM-SHA-256"),
        "OAuth to PLAIN": at("SASL", "OAUTH"),
        **wrong_tokens(broker),
    }


def wrong_tokens(broker: SecureBroker) -> dict[str, KafkaConnection]:
    """Connections whose tokens are refused, or that have none."""
    identity, files = broker.identity, broker.kafka.settings.data_dir

    def of_file(name: str, token: str) -> KafkaConnection:
        path = files / f"{name}.token"
        path.write_text(token)
        return broker.connection("OAUTH", oauth=OAuth(token_file=str(path)))

    return {
        "secret of the client": broker.connection("OAUTH", oauth=broker.oauth(client_secret="wrong")),
        "token endpoint": broker.connection("OAUTH", oauth=broker.oauth(token_url="http://127.0.0.1:9/token")),
        "audience": of_file("audience", identity.token(aud="other")),
        "issuer": of_file("issuer", identity.token(iss="https://other.example")),
        "signature": of_file("signature", IdentityProvider().token()),
        "not a JWT": of_file("opaque", "opaque"),
        "expired token": of_file("expired", identity.token(lifetime_s=-60)),
        "no such provider": broker.connection("OAUTHTLS", oauth=OAuth(provider="no_such_module.Tokens")),
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
    "password of SCRAM": (AccessDeniedError, "refuses our user name or password"),
    "user of SCRAM": (AccessDeniedError, "refuses our user name or password"),
    "OAuth to PLAIN": (AccessDeniedError, "does not offer the SASL mechanism OAUTHBEARER"),
    "secret of the client": (AccessDeniedError, "refuses our client id or secret (status 401: invalid_client"),
    "token endpoint": (AccessDeniedError, "cannot be reached (Connection refused): check"),
    "audience": (AccessDeniedError, "refuses our token ("),
    "issuer": (AccessDeniedError, "refuses our token ("),
    "signature": (AccessDeniedError, "refuses our token ("),
    "not a JWT": (AccessDeniedError, "refuses our token ("),
    "expired token": (AccessDeniedError, "s ago: it is not rotated"),
    "no such provider": (AccessDeniedError, "cannot be loaded: No module named 'no_such_module'"),
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


@pytest.mark.parametrize("listener", ["TLS", "MUTUAL", "SASL", "SASLTLS", "SCRAM", "SCRAMTLS", "OAUTH", "OAUTHTLS"])
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
    options = {name: getattr(connection, name) for name in KafkaConnection.__dataclass_fields__ if name != "oauth"}
    if connection.oauth is not None:
        options |= {f"oauth_{name}": getattr(connection.oauth, name) for name in OAuth.__dataclass_fields__}
    given = {setting_name(name): value for name, value in options.items() if value and name != "bootstrap_servers"}
    if not connection.security_protocol.startswith("SASL"):
        del given["INFERD_KAFKA_SASL_MECHANISM"]
    return {"INFERD_BROKER": connection.bootstrap_servers, **given}


@pytest.mark.parametrize(
    ("case", "words", "setting"),
    [
        ("password", "refuses our user name or password", "INFERD_KAFKA_SASL_PASSWORD"),
        ("secret of the client", "refuses our client id or secret", "INFERD_KAFKA_OAUTH_CLIENT_SECRET"),
    ],
)
def test_a_command_prints_the_cause_and_the_setting(
    secure_broker: SecureBroker, case: str, words: str, setting: str
) -> None:
    connection = wrong_connections(secure_broker)[case]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    command = [sys.executable, "-m", "inferd.daemon.cli", "topics", "list"]
    done = subprocess.run(
        command, env=environ | environment(connection), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert words in done.stderr
    assert setting in done.stderr


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


async def test_a_connection_outlives_its_session(secure_broker: SecureBroker) -> None:
    """The broker would close a connection that is used after its session; here it answers on the same one."""
    connection = secure_broker.connection("SHORT")
    (address,) = bootstrap_addresses(connection.bootstrap_servers)
    opened: Any = await connect(connection, *address, 20)
    deadline = time.monotonic() + 2.5 * SESSION_S
    while time.monotonic() < deadline:
        assert (await opened.send(MetadataRequest([]))).brokers
        await asyncio.sleep(0.05)
    opened.close()


def test_a_worker_authenticates_again_with_new_tokens_under_load(
    secure_broker: SecureBroker, namespace: str, start_worker: StartWorker, model: TrainedModel
) -> None:
    """Its tokens are valid for seconds, and the broker closes connections that are used longer."""
    identity = secure_broker.identity
    identity.lifetime_s, before = 2 * SESSION_S, identity.issued
    connection = secure_broker.connection("SHORT")
    cluster = Cluster(secure_broker.address("PLAINTEXT"), namespace)
    cluster.create_topics()
    cluster.deploy(model)
    worker = start_worker(cluster, environ=environment(connection))
    worker.wait_ready()
    load = Load(cluster, model)
    load.start(50)
    until(lambda: identity.issued >= before + 4, 60, "four tokens")
    load.stop()
    ledger = load.ledger()
    assert (ledger.lost, ledger.wrong, ledger.out_of_order) == ([], 0, 0)
    said = worker.text()
    assert "connected to" not in said, "no connection was lost"
    assert "cannot connect" not in said
    assert worker.stop() == 0
