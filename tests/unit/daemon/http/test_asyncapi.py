"""`/asyncapi.json`: the tenants and routes that a caller may know of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.tokens import TokensFile
from inferd.schemas.routes import Format, Route, Sink, Source
from tests.fixtures.asyncapi_rules import faults
from tests.unit.daemon.http.fake_http_services import FakeWorker

ROUTES = {
    tenant: [Route("r", Source([f"{tenant}.in"], Format("json")), "m", Sink(f"{tenant}.out"))]
    for tenant in ("acme", "beta")
}


async def described(worker: FakeWorker, token: str | None = None) -> dict[str, Any]:
    worker.routes.routes = {(tenant, each.name): each for tenant, found in ROUTES.items() for each in found}
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with TestClient(TestServer(worker.app)) as client:
        answer = await client.get("/asyncapi.json", headers=headers)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        found: dict[str, Any] = await answer.json()
        return found


@pytest.mark.parametrize(("token", "tenants"), [(None, ["acme", "beta"]), ("of-beta", ["beta"])])
async def test_it_names_the_tenants_of_the_caller(tmp_path: Path, token: str | None, tenants: list[str]) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"beta:{hashlib.sha256(b'of-beta').hexdigest()}\n")
    path.chmod(0o600)
    tokens = None if token is None else TokensFile(path)
    found = await described(FakeWorker(tmp_path / "uploads", access=Access(("acme", "beta"), tokens)), token)
    assert faults(found) == []
    assert found["components"]["parameters"]["tenant"]["enum"] == tenants
    addresses = {channel["address"] for channel in found["channels"].values()}
    assert {f"{tenant}.{end}" for tenant in tenants for end in ("in", "out")} <= addresses
    assert ("acme.in" in addresses) is ("acme" in tenants)
