"""Authentication and authorisation over HTTP: tokens, tenants, and public routes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.roles import ROLES, Role
from inferd.daemon.http.core.tokens import (
    CHECK_INTERVAL_S,
    TokensFile,
    read_tokens,
    token_of,
)
from inferd.daemon.http.routes.observation import readyz
from inferd.daemon.http.routes.open_inference_operations import OPEN_INFERENCE
from inferd.daemon.http.routes.openapi import ALL_OPERATIONS
from inferd.daemon.http.user_routes.routes import UserRoutes
from inferd.daemon.settings.checks import check_worker
from inferd.daemon.settings.settings import Settings
from inferd.daemon.settings.table import SettingsError
from inferd.schemas.errors import ServerError
from inferd.streams.telemetry.snapshot import DanglingAlias
from tests.unit.daemon.fake_streams import model, partition, snapshot, tenant
from tests.unit.daemon.http.fake_http_services import FakeWorker

Client = TestClient[web.Request, web.Application]
MODEL = b"tree\nversion=v4\n"
BYTES = {"Content-Type": "application/octet-stream"}


def line(owner: str, token: str, *more: str) -> str:
    return ":".join((owner, hashlib.sha256(token.encode()).hexdigest(), *more)) + "\n"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# who may\n\n" + line("acme", "a-token") + line("acme", "a-next") + line("beta", "b-token"))
    with path.open("a") as file:
        file.write(line("*", "o-token") + line("gone", "g-token"))
    path.chmod(0o640)
    return path


@pytest.fixture
def worker(tmp_path: Path, tokens: Path) -> FakeWorker:
    made = FakeWorker(tmp_path / "uploads", access=Access(("acme", "beta"), TokensFile(tokens)))
    made.streams.said = snapshot(
        tenants=(tenant("acme"), tenant("beta")),
        models=(model("m", tenant="acme"), model("secret", tenant="beta")),
        dangling_aliases=(DanglingAlias("beta", "secret", "champion", (2,)),),
        partitions=(partition("inferd.acme.requests"), partition("inferd.beta.requests")),
        last_error="beta's topic is full",
    )
    return made


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/"])
async def test_probes_and_the_page_need_no_token(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 200
    assert "secret" not in await answer.text()


GUARDED = [
    "/status",
    "/metrics",
    "/openapi.json",
    "/asyncapi.json",
    "/models",
    "/models/m",
    "/jobs",
    "/jobs/1",
    "/nothing",
    "/predict/m",
]


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), bearer(""), {"Authorization": "Basic a-token"}, {"Authorization": "a-token"}]
)
async def test_all_other_routes_need_a_token(client: Client, path: str, headers: dict[str, str]) -> None:
    answer = await client.get(path, headers=headers)
    assert (answer.status, (await answer.json())["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["a-token", "a-next"])
async def test_a_token_determines_the_tenant(client: Client, worker: FakeWorker, token: str) -> None:
    answer = await client.post("/predict/churn", json={"input_data": [1, 2]}, headers=bearer(token))
    assert answer.status == 200
    assert worker.predictions.asked[0][0] == "acme"


async def test_the_scheme_is_case_insensitive(client: Client) -> None:
    assert (await client.get("/models", headers={"Authorization": "bearer a-token"})).status == 200


async def test_another_tenants_model_is_not_found(client: Client) -> None:
    deployed = await client.put("/models/m:1", data=MODEL, headers={**BYTES, **bearer("a-token")})
    assert deployed.status == 201
    for method in ("GET", "DELETE"):
        answer = await client.request(method, "/models/m:1", headers=bearer("b-token"))
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")
    assert await (await client.get("/models", headers=bearer("b-token"))).json() == {"models": []}
    assert (await client.get("/models/m:1", headers=bearer("a-token"))).status == 200


async def test_another_tenants_job_is_not_found(client: Client) -> None:
    job = {"job_id": "j1", "model_id": "m", "input_batch": [[1]]}
    assert (await client.post("/jobs", json=job, headers=bearer("a-token"))).status == 202
    answer = await client.get("/jobs/j1", headers=bearer("b-token"))
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "job_not_found")


@pytest.mark.parametrize(
    ("token", "named"), [("a-token", "beta"), ("o-token", "acme"), ("o-token", None), ("g-token", None)]
)
async def test_a_token_is_forbidden_for_other_tenants(client: Client, token: str, named: str | None) -> None:
    headers = bearer(token) | ({"inferd-tenant": named} if named else {})
    answer = await client.get("/models", headers=headers)
    assert (answer.status, (await answer.json())["error"]["code"]) == (403, "forbidden")


@pytest.fixture
async def client_of_own_routes(tmp_path: Path) -> AsyncIterator[Callable[[TokensFile | None], Awaitable[Client]]]:
    """Clients of workers of two tenants, with user routes of the first one."""
    clients: list[Client] = []

    async def made(file: TokensFile | None) -> Client:
        own = UserRoutes("acme")
        own.get("/mine")(lambda: "mine")
        own.get("/health")(lambda: "well")
        worker = FakeWorker(tmp_path / "uploads", access=Access(("acme", "beta"), file), own=own)
        clients.append(TestClient(TestServer(worker.app)))
        await clients[-1].start_server()
        return clients[-1]

    yield made
    for client in clients:
        await client.close()


@pytest.mark.parametrize(
    ("token", "named", "status"),
    [
        ("a-token", None, 200),
        ("a-token", "acme", 200),
        ("a-token", "beta", 403),
        ("b-token", None, 403),
        ("b-token", "acme", 403),
        ("o-token", None, 403),
        ("g-token", None, 403),
    ],
)
async def test_user_routes_are_closed_to_other_tenants(
    client_of_own_routes: Any, tokens: Path, token: str, named: str | None, status: int
) -> None:
    client = await client_of_own_routes(TokensFile(tokens))
    headers = bearer(token) | ({"inferd-tenant": named} if named else {})
    for method in ("GET", "HEAD"):
        assert (await client.request(method, "/mine", headers=headers)).status == status
    assert (await client.get("/health")).status == 200


@pytest.mark.parametrize(("named", "status"), [(None, 200), ("acme", 200), ("beta", 403), ("gamma", 400)])
async def test_user_routes_without_tokens_need_no_tenant(
    client_of_own_routes: Any, named: str | None, status: int
) -> None:
    client = await client_of_own_routes(None)
    assert (await client.get("/mine", headers={"inferd-tenant": named} if named else {})).status == status


async def test_a_tenant_sees_only_its_part_of_the_status(client: Client) -> None:
    answer = await client.get("/status", headers=bearer("a-token"))
    said = await answer.json()
    assert [item["tenant"] for item in said["tenants"]] == ["acme"]
    assert [item["model_id"] for item in said["models"]] == ["m"]
    assert [item["topic"] for item in said["partitions"]] == ["inferd.acme.requests"]
    assert said["lag"] == 20
    assert said["throughput"] is None
    assert "beta" not in await answer.text()


async def test_an_operator_sees_the_whole_status(client: Client) -> None:
    said = await (await client.get("/status", headers=bearer("o-token"))).json()
    assert [item["tenant"] for item in said["tenants"]] == ["acme", "beta"]
    answer = await client.get("/metrics", headers=bearer("o-token"))
    assert (answer.status, "beta" in await answer.text()) == (200, True)


async def test_metrics_need_an_operators_token(client: Client) -> None:
    assert (await client.get("/metrics", headers=bearer("a-token"))).status == 403


async def test_openapi_requires_tokens_and_roles(client: Client) -> None:
    said = await (await client.get("/openapi.json", headers=bearer("a-token"))).json()
    assert said["paths"]["/predict/{model_id}"]["post"]["security"] == [{"token": ["predict"]}]
    assert said["paths"]["/jobs/{job_id}"]["get"]["security"] == [{"token": ["predict"]}, {"token": ["read"]}]
    assert said["paths"]["/whoami"]["get"]["security"] == [{"token": []}]
    assert "security" not in said["paths"]["/livez"]["get"]


# ------------------------------------------------------------------------------------------------------ roles


@pytest.fixture
async def client_as(
    tmp_path: Path,
) -> AsyncIterator[Callable[[str, str], Awaitable[Client]]]:
    """Clients of a worker whose token for a tenant has these roles."""
    clients: list[Client] = []

    async def made(tenant: str, roles: str) -> Client:
        path = tmp_path / "with-roles"
        path.write_text(line(tenant, "t", "ann@example", roles))
        path.chmod(0o600)
        own = UserRoutes("acme")
        own.get("/mine")(lambda: "mine")
        own.get("/admin", role="operate")(lambda: "mine")
        worker = FakeWorker(tmp_path / "uploads", access=Access(("acme", "beta"), TokensFile(path)), own=own)
        worker.app.router.add_get("/undeclared", readyz)
        clients.append(TestClient(TestServer(worker.app), headers=bearer("t")))
        await clients[-1].start_server()
        return clients[-1]

    yield made
    for client in clients:
        await client.close()


OF_ROLES = {
    "monitor": {"status", "metrics", "history", "cluster", "cluster_history"},
    "predict": {"predict", "send_labels", "submit_job", "get_job", "get_job_results", "cancel_job", "retry_job"},
    "read": {"status", "metrics", "history", "cluster", "cluster_history"}
    | {"get_job", "get_job_results", "list_jobs", "list_models", "get_model", "get_version", "get_baseline"}
    | {
        "get_alias",
        "list_aliases",
        "list_windows",
        "get_drift",
        "get_quality",
        "list_captured",
        "list_rollouts",
        "get_rollout",
    }
    | {"list_routes", "get_route", "list_audit", "list_dead_letters", "get_dead_letter", "list_pauses"}
    | {"list_topics", "list_topic_records"},
    "deploy": {"deploy_model", "delete_model", "deploy_version", "delete_version", "set_alias", "delete_alias"}
    | {"rollback_alias", "promote_alias", "start_rollout", "pause_rollout", "resume_rollout", "promote_rollout"}
    | {"abort_rollout", "put_route", "delete_route"},
    "operate": {"cancel_job", "retry_job", "rollback_alias", "pause_rollout", "resume_rollout", "abort_rollout"}
    | {"redrive_dead_letters", "pause_model", "pause_route", "resume_model", "resume_route"},
}
"""Operations, besides those of the Open Inference Protocol, that need a role."""


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_opens_its_operations_and_no_other(client_as: Any, role: Role) -> None:
    client = await client_as("acme", role)
    opened = set()
    for operation in ALL_OPERATIONS:
        if operation in OPEN_INFERENCE or operation.public or operation.roles == ROLES:
            continue
        path = re.sub(r"\{\w+\}", "1", operation.path)
        answer = await client.request(operation.method, path, headers={"inferd-request": "1"})
        fault = (await answer.json())["error"]["message"] if answer.status == 403 else ""
        if "needs the role" in fault:
            assert "the token 'ann@example' has" in fault
            assert " or ".join(operation.roles) in fault
        else:
            opened.add(operation.name)
    assert opened == OF_ROLES[role]


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("predict", "/mine", 200),
        ("read", "/mine", 403),
        ("predict", "/admin", 403),
        ("operate", "/admin", 200),
        ("predict,read,deploy,operate,monitor", "/undeclared", 200),
        ("predict,read,deploy,monitor", "/undeclared", 403),
        ("predict", "/nothing", 404),
    ],
)
async def test_roles_of_user_routes_and_of_undeclared_ones(client_as: Any, role: str, path: str, status: int) -> None:
    client = await client_as("acme", role)
    for method in ("GET", "HEAD"):
        assert (await client.request(method, path)).status == status


async def test_a_token_of_all_tenants_names_one(client_as: Any) -> None:
    client = await client_as("*", "read")
    assert (await client.get("/models", headers={"inferd-tenant": "beta"})).status == 200
    assert (await client.get("/models")).status == 400
    assert (await client.get("/metrics")).status == 200


@pytest.mark.parametrize(
    ("tenant", "roles", "tenants", "expected"),
    [
        ("acme", "read, predict", ["acme"], ["monitor", "predict", "read"]),
        ("*", "operate", ["acme", "beta"], ["operate"]),
        ("gone", "predict", [], ["predict"]),
    ],
)
async def test_whoami(client_as: Any, tenant: str, roles: str, tenants: list[str], expected: list[str]) -> None:
    client = await client_as(tenant, roles)
    said = await (await client.get("/whoami")).json()
    assert said == {"name": "ann@example", "tenants": tenants, "roles": expected}


async def test_whoami_without_tokens(tmp_path: Path) -> None:
    async with TestClient(TestServer(FakeWorker(tmp_path).app)) as client:
        said = await (await client.get("/whoami")).json()
    assert said == {"name": None, "tenants": ["default"], "roles": list(ROLES)}


# ------------------------------------------------------------------------------------------------------ without tokens


@pytest.mark.parametrize(
    ("tenants", "headers", "expected"),
    [
        (("default",), {}, "default"),
        (("only",), {}, "only"),
        (("acme", "beta"), {"inferd-tenant": "beta"}, "beta"),
        (("acme", "beta"), {}, "invalid_header"),
        (("acme", "beta"), {"inferd-tenant": "other"}, "invalid_header"),
        (("acme", "beta"), {"inferd-tenant": "a.b"}, "invalid_header"),
        (("acme",), {"inferd-tenant": "other"}, "invalid_header"),
    ],
)
async def test_without_tokens_a_header_names_the_tenant(
    tmp_path: Path, tenants: tuple[str, ...], headers: dict[str, str], expected: str
) -> None:
    worker = FakeWorker(tmp_path, access=Access(tenants))
    async with TestClient(TestServer(worker.app)) as client:
        answer = await client.post("/predict/churn", json={"input_data": [1, 2]}, headers=headers)
        if answer.status == 200:
            assert worker.predictions.asked[0][0] == expected
        else:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, expected)


# ------------------------------------------------------------------------------------------------------ the file


def test_the_entry_of_a_token(tokens: Path) -> None:
    with tokens.open("a") as file:
        file.write(line("acme", "n-token", "ci") + line("acme", "r-token", "ci", "predict,deploy"))
    found = read_tokens(tokens)

    def entry(token: str) -> tuple[str, str, set[Role]] | None:
        it = token_of(token, found)
        return None if it is None else (it.tenant, it.name, set(it.roles))

    digest = hashlib.sha256(b"a-next").hexdigest()[:8]
    assert entry("a-next") == ("acme", f"token-{digest}", set(ROLES))
    assert entry("n-token") == ("acme", "ci", set(ROLES))
    assert entry("r-token") == ("acme", "ci", {"predict", "deploy"})
    assert (found[3].tenant, set(found[3].roles)) == ("*", {"monitor"})
    assert entry("x") is None
    assert "sha256" not in repr(found[0])


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "acme\n", "acme:abc\n", "a.b:" + "0" * 64, ":" + "0" * 64]
    + ["acme:" + "0" * 64 + more for more in (":", ":a b", ":ci:", ":ci:admin", ":ci:read,,", ":ci:read:x")],
)
def test_an_invalid_tokens_file_is_rejected(tokens: Path, text: str) -> None:
    tokens.write_text(text)
    with pytest.raises(ServerError):
        read_tokens(tokens)


def test_an_error_names_the_line_and_shows_no_token(tokens: Path) -> None:
    tokens.write_text(line("acme", "x") + "acme:my-secret-token\n")
    with pytest.raises(ServerError, match="line 2") as refused:
        read_tokens(tokens)
    assert "my-secret-token" not in refused.value.message


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o660, 0o641])
def test_a_file_with_wide_permissions_is_rejected(tokens: Path, mode: int) -> None:
    tokens.chmod(mode)
    with pytest.raises(ServerError, match="chmod"):
        read_tokens(tokens)


def owner(token: str, file: TokensFile) -> str | None:
    found = token_of(token, file.tokens())
    return None if found is None else found.tenant


def test_a_changed_file_is_reloaded(tokens: Path) -> None:
    now = [0.0]
    file = TokensFile(tokens, lambda: now[0])
    tokens.write_text(line("beta", "new"))
    assert token_of("new", file.tokens()) is None
    now[0] += CHECK_INTERVAL_S
    assert owner("new", file) == "beta"
    tokens.write_text("nonsense")
    os.utime(tokens, ns=(1, 1))
    now[0] += CHECK_INTERVAL_S
    assert owner("new", file) == "beta"
    tokens.unlink()
    now[0] += CHECK_INTERVAL_S
    assert owner("new", file) == "beta"


def problems(**flags: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        check_worker(Settings.from_environment({}, flags))
    return refused.value.problems


def test_beyond_loopback_tokens_or_insecure_http_are_required(tokens: Path) -> None:
    (problem,) = problems(http_host="0.0.0.0")
    assert "INFERD_HTTP_TOKENS_FILE" in problem
    assert "--insecure-http" in problem
    for flags in ({"http_tokens_file": str(tokens)}, {"insecure_http": "true"}):
        check_worker(Settings.from_environment({}, {"http_host": "0.0.0.0", **flags}))


def test_a_worker_does_not_start_with_an_invalid_tokens_file(tokens: Path) -> None:
    tokens.chmod(0o644)
    (problem,) = problems(http_tokens_file=str(tokens))
    assert problem.startswith("INFERD_HTTP_TOKENS_FILE")
