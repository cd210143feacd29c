"""Every security protocol of Kafka, and every source of tokens: a worker, a client and a command on each.

`make test-access` runs it; tests/delivery/test_access.py has the failures, and a worker with tokens that expire.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from inferd import AccessToken, KafkaConnection, OAuth, SyncClient, TokenProvider
from tests.delivery.test_access import environment
from tests.fixtures.secure_broker import SecureBroker
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel

pytestmark = pytest.mark.timeout(300)
TOKEN_FILE = "OWN_TOKENS_FILE"
"""Variable of the environment for `OwnTokens`."""


class OwnTokens(TokenProvider):
    """A provider as users write it."""

    def token(self) -> AccessToken:
        return AccessToken(Path(os.environ[TOKEN_FILE]).read_text(encoding="utf-8"), time.time() + 5)


def connections(broker: SecureBroker, directory: Path) -> dict[str, KafkaConnection]:
    """Every way to connect, by name."""
    usual = ("PLAINTEXT", "TLS", "MUTUAL", "SASL", "SASLTLS", "SCRAM", "SCRAMTLS", "OAUTH", "OAUTHTLS")
    found = {listener: broker.connection(listener) for listener in usual}
    for listener in ("SCRAM", "SCRAMTLS"):
        found[f"{listener} 256"] = broker.connection(listener, sasl_mechanism="SCRAM-SHA-256")
    for name, word in (("SASL", "right"), ("SCRAMTLS", "right")):
        file = directory / f"{name}.password"
        file.write_text(f"{word}\n")
        found[f"{name} file"] = replace(found[name], sasl_password=None, sasl_password_file=str(file))
    token = directory / "token"
    token.write_text(broker.identity.token())
    found["token file"] = broker.connection("OAUTHTLS", oauth=OAuth(token_file=str(token)))
    os.environ[TOKEN_FILE] = str(token)
    found["own class"] = broker.connection("OAUTHTLS", oauth=OAuth(provider=f"{__name__}.OwnTokens"))
    return found


NAMES = (
    *("PLAINTEXT", "TLS", "MUTUAL", "SASL", "SASLTLS", "SCRAM", "SCRAMTLS", "OAUTH", "OAUTHTLS"),
    *("SCRAM 256", "SCRAMTLS 256", "SASL file", "SCRAMTLS file", "token file", "own class"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_a_client_and_a_command(
    secure_broker: SecureBroker,
    namespace: str,
    start_worker: StartWorker,
    model: TrainedModel,
    tmp_path: Path,
    name: str,
) -> None:
    found = connections(secure_broker, tmp_path)
    assert set(found) == set(NAMES)
    settings = environment(found[name])
    cluster = Cluster(secure_broker.address("PLAINTEXT"), namespace)
    cluster.create_topics()
    worker = start_worker(cluster, environ=settings)
    file = tmp_path / "model.txt"
    file.write_bytes(model.data)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("INFERD_")} | settings
    command = [sys.executable, "-m", "inferd.daemon.cli", "models", "deploy", str(file), "--name", "demo"]
    done = subprocess.run(
        [*command, "--namespace", namespace], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    worker.wait_ready()
    with SyncClient(found[name], namespace=namespace) as client:
        assert [manifest.model_id for manifest in client.list_models()] == ["demo"]
        assert "prediction" in client.predict("demo", [0.0] * model.n_features).outputs
    assert worker.stop() == 0
