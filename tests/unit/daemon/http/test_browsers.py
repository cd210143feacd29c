"""Servers without tokens are protected from web pages of other sites, and remain usable for programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from inferd import ModelManager
from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.browsers import LOOPBACK, Hosts, allowed_hosts_of
from inferd.daemon.http.core.tokens import TokensFile
from inferd.daemon.http.local.model_server import ModelServer
from inferd.daemon.http.user_routes.routes import UserRoutes
from inferd.daemon.http.worker.composition import access_of
from inferd.daemon.settings.settings import Settings
from tests.fixtures.http_client import TOKENS, write_tokens
from tests.unit.daemon.http.fake_http_services import FakeWorker

Client = TestClient[web.Request, web.Application]
JOB = {"job_id": "j1", "model_id": "m", "input_batch": [[1]]}
OURS = {"inferd-request": "1"}
STATE_CHANGING = ("/jobs/j1/cancel", "/jobs/j1/retry", "/own")
REBOUND = ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example:80", "192.168.1.5")


def own_routes() -> UserRoutes:
    routes = UserRoutes()

    @routes.post("/own")
    def own() -> str:
        return "done"

    @routes.post("/own/raw")
    def raw(body: bytes) -> int:
        return len(body)

    return routes


async def served(directory: Path, access: Access) -> AsyncIterator[Client]:
    worker = FakeWorker(directory / "uploads", access=access, own=own_routes())
    async with TestClient(TestServer(worker.app)) as client:
        submitted = await client.post("/jobs", json=JOB, headers={"Authorization": f"Bearer {TOKENS['default']}"})
        assert submitted.status == 202
        yield client


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async for made in served(tmp_path, Access()):
        yield made


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Client]:
    async for made in served(tmp_path, Access(tokens=TokensFile(write_tokens(tmp_path)))):
        yield made


async def code_of(answer: Any) -> tuple[int, str]:
    said = await answer.json()
    return answer.status, said["error"]["code"]


# ------------------------------------------------------------------------------------------------------- the name


@pytest.mark.parametrize("host", REBOUND)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/status"), ("GET", "/metrics"), ("GET", "/models"), ("GET", "/jobs"), ("GET", "/openapi.json")]
    + [("POST", "/predict/m"), ("POST", "/jobs"), ("PUT", "/models/m"), ("DELETE", "/models/m:1"), ("GET", "/none")]
    + [("POST", path) for path in STATE_CHANGING],
)
async def test_dns_rebinding_is_rejected(client: Client, host: str, method: str, path: str) -> None:
    """The browser considers the page same-origin: it may send any header, and `Origin` matches."""
    headers = {"Host": host, "Origin": f"http://{host}", **OURS, "Content-Type": "application/json"}
    answer = await client.request(method, path, headers=headers, data=b"{}")
    assert await code_of(answer) == (403, "forbidden")


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:9999", "LocalHost:1", "localhost.", "127.0.0.1", "127.0.0.1:8080", "127.8.9.1"),
        *("[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]:80", "[::ffff:127.0.0.1]"),
    ],
)
async def test_names_of_loopback_are_allowed_with_any_port(client: Client, host: str) -> None:
    assert (await client.get("/models", headers={"Host": host})).status == 200
    own = {"Host": host, "Origin": f"http://{host}", **OURS}
    assert (await client.post("/own", headers=own)).status == 200


@pytest.mark.parametrize("host", ["", " ", "a b", "localhost:port", "[::1", "user@localhost", "localhost/x", "1:2:3"])
def test_an_invalid_host_is_not_allowed(host: str) -> None:
    from inferd.daemon.http.core.browsers import _AUTHORITY

    match = _AUTHORITY.fullmatch(host)
    assert match is None or not LOOPBACK.has(match["host"])


async def test_probes_accept_any_host(client: Client) -> None:
    for path in ("/livez", "/readyz", "/health"):
        assert (await client.get(path, headers={"Host": "evil.example"})).status == 200


@pytest.mark.parametrize(
    ("variables", "allowed", "refused"),
    [
        ({}, ["localhost", "127.0.0.1"], ["gpu-box", "10.0.0.7"]),
        ({"HTTP_HOST": "::1"}, ["::1", "localhost"], ["10.0.0.7"]),
        ({"HTTP_ALLOWED_HOSTS": "inferd.test,10.0.0.7"}, ["inferd.test", "INFERD.test", "10.0.0.7"], ["test"]),
        ({"HTTP_ADVERTISED_URL": "http://proxy.test:80"}, ["proxy.test"], ["inferd.test"]),
        ({"HTTP_HOST": "0.0.0.0", "INSECURE_HTTP": "true"}, ["anything.test", "10.0.0.7"], []),
        (
            {"HTTP_HOST": "0.0.0.0", "INSECURE_HTTP": "true", "HTTP_ALLOWED_HOSTS": "worker-1"},
            ["worker-1", "10.0.0.7", "localhost"],
            ["evil.example"],
        ),
    ],
)
def test_the_settings_name_the_hosts(variables: dict[str, str], allowed: list[str], refused: list[str]) -> None:
    settings = Settings.from_environment({f"INFERD_{name}": value for name, value in variables.items()})
    hosts = access_of(settings, str)._hosts
    assert [hosts is None or hosts.has(name) for name in allowed] == [True] * len(allowed)
    assert [hosts is None or hosts.has(name) for name in refused] == [False] * len(refused)


def test_any_address_is_allowed_only_beyond_loopback() -> None:
    assert allowed_hosts_of("127.0.0.1", ["a.test"]) == Hosts(frozenset({"127.0.0.1", "a.test"}))
    assert allowed_hosts_of("10.0.0.7", ["a.test"]) == Hosts(frozenset({"10.0.0.7", "a.test"}), any_address=True)


# ----------------------------------------------------------------------------------------------------- the origin


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "http://evil.example:{port}", "http://{host}.evil.example", "http://localhost:3000"),
        *("null", "file://", "{host}", ""),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_pages_of_other_origins_are_rejected(client: Client, origin: str, method: str) -> None:
    named = origin.format(host=f"127.0.0.1:{client.port}", port=client.port)
    answer = await client.request(method, "/jobs", headers={"Origin": named, **OURS})
    assert await code_of(answer) == (403, "forbidden")


async def test_the_servers_own_page_is_allowed(client: Client) -> None:
    headers = {"Origin": f"http://127.0.0.1:{client.port}"}
    assert (await client.get("/jobs", headers=headers)).status == 200
    assert (await client.post("/own", headers=headers | OURS)).status == 200


async def test_a_default_port_may_be_omitted(client: Client) -> None:
    for host, origin in (("localhost", "http://localhost:80"), ("localhost:443", "https://localhost")):
        answer = await client.post("/own", headers={"Host": host, "Origin": origin, **OURS})
        assert answer.status == 200


# ------------------------------------------------------------------------------------- requests without a preflight


@pytest.mark.parametrize("path", STATE_CHANGING)
@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "TEXT/plain; x=1", "text", ""]
)
async def test_requests_without_preflight_are_rejected(client: Client, path: str, kind: str | None) -> None:
    """As sent by a form or by `fetch(…, {mode: "no-cors"})`, from a browser that sends no `Origin`."""
    headers = {} if kind is None else {"Content-Type": kind}
    bare = await client.post(path, headers=headers, skip_auto_headers=["Content-Type"])
    assert await code_of(bare) == (403, "forbidden")
    with_body = await client.post(path, data=b"x", headers=headers, skip_auto_headers=["Content-Type"])
    assert await code_of(with_body) == (415, "unsupported_content_type")


@pytest.mark.parametrize("path", STATE_CHANGING)
@pytest.mark.parametrize("headers", [OURS, {"Inferd-Request": ""}, {"Content-Type": "application/json; charset=utf-8"}])
async def test_programs_identify_themselves_with_a_header(client: Client, path: str, headers: dict[str, str]) -> None:
    answer = await client.post(path, headers=headers)
    assert (answer.status, path) in {(200, "/own"), (409, "/jobs/j1/cancel"), (409, "/jobs/j1/retry")}


async def test_a_raw_body_of_a_user_route_needs_the_header(client: Client) -> None:
    plain = {"Content-Type": "text/plain"}
    assert (await client.post("/own/raw", data=b"abc", headers=plain)).status == 415
    assert await (await client.post("/own/raw", data=b"abc", headers=plain | OURS)).json() == 3


async def test_a_preflight_request_is_not_allowed(client: Client) -> None:
    asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "inferd-request"}
    answer = await client.options("/models/m", headers={"Origin": "http://evil.example", **asked})
    assert answer.status == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_with_tokens_no_other_header_is_needed(guarded: Client) -> None:
    headers = {"Host": "inferd.example", "Authorization": f"Bearer {TOKENS['default']}"}
    assert (await guarded.post("/own", headers=headers)).status == 200
    assert (await guarded.post("/own", headers={"Host": "inferd.example"})).status == 401


async def test_openapi_has_the_header_without_tokens_only(client: Client, guarded: Client) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['default']}"}
    for asked, needed in ((client, True), (guarded, False)):
        said = await (await asked.get("/openapi.json", headers=headers)).json()
        for path in ("/jobs/{job_id}/cancel", "/jobs/{job_id}/retry"):
            named = {each["name"]: each["required"] for each in said["paths"][path]["post"]["parameters"]}
            assert named.get("inferd-request", False) is needed


# --------------------------------------------------------------------------------------------------- a plain script


async def test_a_server_of_the_python_api_has_the_same_protection(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path)
    server = ModelServer(manager, port=0, allowed_hosts=["inferd.test"])
    from aiohttp import ClientSession

    url = server.start_in_thread()
    try:
        async with ClientSession() as session:
            for host, status in (("evil.example", 403), ("inferd.test", 200), ("localhost:1", 200)):
                async with session.get(f"{url}/models", headers={"Host": host}) as answer:
                    assert answer.status == status
            async with session.post(f"{url}/jobs/j/cancel", skip_auto_headers=["Content-Type"]) as answer:
                assert await code_of(answer) == (403, "forbidden")
            async with session.post(f"{url}/jobs/j/cancel", headers=OURS) as answer:
                assert await code_of(answer) == (404, "job_not_found")
    finally:
        server.stop_server()
