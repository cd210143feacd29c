"""The embedded schema registry as users meet it: started, killed, stopped, and started wrongly."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from inferd.daemon.broker import BrokerStartError, EmbeddedRegistry, PortTakenError
from tests.fixtures.registry import registry_settings


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_schemas_survive_a_kill_and_a_stop(tmp_path: Path) -> None:
    registry = EmbeddedRegistry(registry_settings(tmp_path))
    registry.start()
    try:
        url, schema = registry.url, {"schema": '"string"'}
        first = ask(f"{url}/subjects/one/versions", schema)
        registry.kill()
        assert not registry.running
        registry.start()
        assert registry.url == url
        assert ask(f"{url}/schemas/ids/{first['id']}")["schema"] == '"string"'
        other = ask(f"{url}/subjects/two/versions", {"schema": '"long"'})
        registry.stop()
        registry.start()
        assert ask(f"{url}/schemas/ids/{other['id']}")["schema"] == '"long"'

        with pytest.raises(BrokerStartError, match=r"ended with exit code .* its log is .*registry\.log"):
            EmbeddedRegistry(registry_settings(tmp_path)).start()
        os.kill(registry.pid or 0, signal.SIGKILL)
        assert registry.wait(10) == -signal.SIGKILL
    finally:
        registry.kill()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} .* INFERD_REGISTRY_PORT.*INFERD_SCHEMA_REGISTRY_URL"):
            EmbeddedRegistry(registry_settings(tmp_path, port)).start()
