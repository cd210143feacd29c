"""Forwarding between workers: they authenticate, never forward tokens, and return only valid responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.application import AppLimits, create_app
from inferd.daemon.http.core.errors import UnauthorizedError
from inferd.daemon.http.core.peers import (
    FORWARDED,
    LIFETIME_S,
    PEER_PATH,
    SKEW_S,
    Peers,
    PeerSecret,
    add_peer,
    read_peer_secret,
)
from inferd.daemon.http.core.server import HttpServer, Listener
from inferd.daemon.http.core.tls import peer_context, server_context
from inferd.daemon.http.core.tokens import TokensFile
from inferd.daemon.http.routes.forwarding import JSON_BYTES_MAX, PARTITIONS, Forwarding
from inferd.daemon.http.routes.jobs import add_jobs
from inferd.daemon.http.routes.observation import add_observation
from inferd.daemon.http.worker.services import StreamsJobs
from inferd.daemon.settings.checks import check_worker
from inferd.daemon.settings.settings import Settings
from inferd.daemon.settings.table import SettingsError
from inferd.daemon.telemetry.status import StatusBoard
from inferd.schemas.errors import ServerError
from tests.fixtures.certificates import Authority, Pair
from tests.fixtures.http_client import TOKENS, write_tokens
from tests.unit.daemon.http.test_jobs import JobStore, Streams

SECRET = PeerSecret((b"s" * 32,))
OTHER = PeerSecret((b"o" * 32,))
HERE, THERE = "http://10.0.0.1:8080", "http://10.0.0.2:8080"
JOB = {"job_id": "j1", "model_id": "churn", "input_batch": [[1], [2]]}
BEARER = {"Authorization": f"Bearer {TOKENS['default']}"}
NDJSON = {"Content-Type": "application/x-ndjson"}
NAMED_SECRET = "INFERD_HTTP_FORWARDING_SECRET_FILE"
REQUESTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/jobs", {}),
    ("GET", "/jobs/j1", {}),
    ("GET", "/jobs/j1/results", {}),
    ("POST", "/jobs/j1/cancel", {}),
    ("POST", "/jobs", {"json": JOB}),
    ("POST", "/jobs?model=churn", {"data": b"[1]\n", "headers": NDJSON | BEARER}),
)


# ------------------------------------------------------------------------------------------------------------ passes


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def received(method: str, path: str, passed: str) -> web.Request:
    return make_mocked_request(method, path, headers={FORWARDED: passed})


def test_a_pass_authenticates_its_request() -> None:
    passed = Peers(SECRET, lambda: HERE).pass_for(THERE, "acme", "GET", "/jobs/j?x=%26")
    assert Peers(SECRET, lambda: THERE + "/").tenant_of(received("GET", "/jobs/j?x=%26", passed)) == "acme"


@pytest.mark.parametrize(
    ("method", "path", "url", "secret"),
    [
        ("POST", "/jobs/j", THERE, SECRET),
        ("GET", "/jobs/k", THERE, SECRET),
        ("GET", "/jobs/j?from_row=1", THERE, SECRET),
        ("GET", "/jobs/j", HERE, SECRET),
        ("GET", "/jobs/j", THERE, OTHER),
    ],
)
def test_a_pass_is_rejected_for_any_other_request(method: str, path: str, url: str, secret: PeerSecret) -> None:
    passed = Peers(SECRET, lambda: HERE).pass_for(THERE, "acme", "GET", "/jobs/j")
    with pytest.raises(UnauthorizedError):
        Peers(secret, lambda: url).tenant_of(received(method, path, passed))


@given(place=st.integers(0, 200), text=st.text("abcdef0123456789.v\x7f-", min_size=0, max_size=3))
def test_a_modified_pass_is_rejected(place: int, text: str) -> None:
    passed = Peers(SECRET, lambda: HERE, Clock()).pass_for(THERE, "acme", "GET", "/jobs/j")
    changed = passed[: place % len(passed)] + text + passed[place % len(passed) + 1 :]
    if changed not in (passed, "1"):
        with pytest.raises(UnauthorizedError):
            Peers(SECRET, lambda: THERE, Clock()).tenant_of(received("GET", "/jobs/j", changed))


@pytest.mark.parametrize(
    ("later_s", "accepted"),
    [
        (-SKEW_S, True),
        (0, True),
        (LIFETIME_S + SKEW_S - 1, True),
        (LIFETIME_S + SKEW_S + 1, False),
        (-SKEW_S - 2, False),
    ],
)
def test_a_pass_expires(later_s: float, *, accepted: bool) -> None:
    clock = Clock()
    passed = Peers(SECRET, lambda: HERE, clock).pass_for(THERE, "acme", "GET", "/jobs/j")
    clock.now += later_s
    receiver, request = Peers(SECRET, lambda: THERE, clock), received("GET", "/jobs/j", passed)
    if accepted:
        assert receiver.tenant_of(request) == "acme"
    else:
        with pytest.raises(UnauthorizedError):
            receiver.tenant_of(request)


def test_a_secret_can_be_rotated() -> None:
    new = PeerSecret((b"n" * 32, b"s" * 32))
    for signing, checking in ((SECRET, new), (new, new)):
        passed = Peers(signing, lambda: HERE).pass_for(THERE, "acme", "GET", "/jobs/j")
        assert Peers(checking, lambda: THERE).tenant_of(received("GET", "/jobs/j", passed)) == "acme"


def test_a_proof_is_valid_for_one_challenge_and_address() -> None:
    proof = Peers(SECRET, lambda: THERE).prove("abc")
    assert Peers(SECRET).proves(THERE, "abc", proof)
    assert not Peers(SECRET).proves(THERE, "abd", proof)
    assert not Peers(SECRET).proves(HERE, "abc", proof)
    assert not Peers(OTHER).proves(THERE, "abc", proof)
    assert not Peers(SECRET).proves(THERE, "abc", "ü")


# -------------------------------------------------------------------------------------------------------- the file


def secret_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_secrets_are_lines_of_a_private_file(tmp_path: Path) -> None:
    path = secret_file(tmp_path, f"# now\n{'a' * 64}\n\n# before\n{'b' * 32}\n")
    assert read_peer_secret(path).keys == (b"a" * 64, b"b" * 32)
    assert "aaa" not in repr(read_peer_secret(path))


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("", 0o600, "openssl rand"),
        ("# nothing\n", 0o600, "no secret"),
        ("a" * 32 + "\nshort-secret\n", 0o600, "line 2: .* 32 characters"),
        ("a" * 64, 0o644, "chmod 640"),
    ],
)
def test_an_invalid_secret_file_fails_the_start(tmp_path: Path, text: str, mode: int, words: str) -> None:
    path = secret_file(tmp_path, text, mode)
    with pytest.raises(ServerError, match=words) as refused:
        read_peer_secret(path)
    assert "short-secret" not in refused.value.message
    with pytest.raises(SettingsError, match=NAMED_SECRET):
        check_worker(Settings.from_environment({}, {"http_forwarding_secret_file": str(path)}))


# --------------------------------------------------------------------------------------------------- two workers


@dataclass(frozen=True)
class Tls:
    """A worker's certificate, and the authority that it trusts."""

    pair: Pair
    cafile: Path


class Node:
    """One worker, with tokens if given."""

    def __init__(
        self, jobs: JobStore, secret: PeerSecret | None, tokens: TokensFile | None, tls: Tls | None = None
    ) -> None:
        self.jobs, self.streams, self.asked = jobs, Streams(jobs), list[web.Request]()
        services = StreamsJobs()
        services.attach(self.streams)
        access = Access(("default", "other"), tokens, peers=Peers(secret, lambda: self.url))
        app = create_app(access=access, limits=AppLimits(read_timeout_s=30))
        add_jobs(app, services, Forwarding(services, None if tls is None else peer_context(str(tls.cafile))))
        add_peer(app)
        add_observation(app, StatusBoard(Settings.from_environment({})))
        asked = self.asked

        @web.middleware
        async def note(request: web.Request, handler: Any) -> Any:
            asked.append(request)
            return await handler(request)

        app.middlewares.append(note)
        listener = None
        if tls is not None:
            listener = Listener("127.0.0.1", 0, server_context(str(tls.pair.cert), str(tls.pair.key)))
        self.http = HttpServer(app, "127.0.0.1", 0, tls=listener)

    @property
    def url(self) -> str:
        """What it advertises."""
        return self.http.tls_url or self.http.url


Nodes = tuple[Node, Node]


@asynccontextmanager
async def two_nodes(
    tokens: TokensFile | None, *secrets: PeerSecret | None, tls: tuple[Tls | None, Tls | None] = (None, None)
) -> AsyncIterator[Nodes]:
    """A worker that owns no job, and one that owns all jobs."""
    front = Node(JobStore(frozenset({0}), mine=False), secrets[0], tokens, tls[0])
    owner = Node(JobStore(frozenset({1})), secrets[1], tokens, tls[1])
    await front.http.start()
    await owner.http.start()
    front.jobs.url, front.streams.others, owner.streams.others = owner.url, [owner.url], [front.url]
    try:
        yield front, owner
    finally:
        await front.http.stop()
        await owner.http.stop()


@pytest.fixture
def tokens(tmp_path: Path) -> TokensFile:
    return TokensFile(write_tokens(tmp_path))


async def asked(url: str, method: str, path: str, options: dict[str, Any]) -> tuple[int, Any]:
    headers = options.get("headers", BEARER | {"inferd-request": "1", "inferd-tenant": "default"})
    rest = {name: value for name, value in options.items() if name != "headers"}
    async with ClientSession() as session, session.request(method, url + path, headers=headers, **rest) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if answer.content_type == "application/json" else text


async def test_the_owner_gets_a_pass_instead_of_the_callers_token(tokens: TokensFile) -> None:
    async with two_nodes(tokens, SECRET, SECRET) as (front, owner):
        for method, path, options in REQUESTS:
            status, said = await asked(front.url, method, path, options)
            assert status in (200, 202, 404, 409), said
        assert {tenant for tenant, _ in owner.jobs.messages} == {"default"}
        assert len(owner.asked) == len(REQUESTS) + 1
        for request in owner.asked:
            assert "Authorization" not in request.headers
            assert TOKENS["default"] not in str(request.headers)
        _, said = await asked(front.url, "GET", "/jobs/j1", {"headers": {"Authorization": f"Bearer {TOKENS['other']}"}})
        assert said["error"]["code"] == "job_not_found"


async def test_an_intercepted_pass_cannot_be_reused(tokens: TokensFile) -> None:
    async with two_nodes(tokens, SECRET, SECRET) as (front, owner):
        await asked(front.url, "GET", "/jobs/j1", {})
        seen = owner.asked[-1].headers[FORWARDED]
        for url, method, path in (
            (owner.url, "GET", "/jobs/j1/results"),
            (owner.url, "POST", "/jobs/j1"),
            (front.url, "GET", "/jobs/j1"),
            (owner.url, "GET", "/status"),
        ):
            status, said = await asked(url, method, path, {"headers": {FORWARDED: seen}})
            assert (status, said["error"]["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("secrets", [(None, None), (None, SECRET), (SECRET, None), (SECRET, OTHER)])
async def test_without_a_common_secret_nothing_is_forwarded(tokens: TokensFile, secrets: tuple[Any, Any]) -> None:
    async with two_nodes(tokens, *secrets) as (front, owner):
        for method, path, options in REQUESTS:
            status, said = await asked(front.url, method, path, options)
            assert (status, said["error"]["code"]) == (503, "unavailable")
            assert NAMED_SECRET in said["error"]["message"]
        assert {request.path for request in owner.asked} <= {PEER_PATH}
        assert not owner.jobs.messages


async def test_without_tokens_workers_forward_without_a_secret() -> None:
    async with two_nodes(None, None, None) as (front, _):
        for method, path, options in REQUESTS[:5]:
            status, said = await asked(front.url, method, path, options)
            assert status in (200, 202, 404, 409), said


async def test_workers_forward_over_tls(tokens: TokensFile, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = Tls(authority.issue("worker"), authority.cert)
    async with two_nodes(tokens, SECRET, SECRET, tls=(tls, tls)) as (front, owner):
        assert owner.url.startswith("https:")
        for method, path, options in REQUESTS[:5]:
            status, said = await asked(front.http.url, method, path, options)
            assert status in (200, 202, 404, 409), said
        assert owner.asked


@pytest.mark.parametrize("names", ["IP:127.0.0.1", "DNS:other.example"])
async def test_a_certificate_that_is_not_accepted_is_explained(tokens: TokensFile, tmp_path: Path, names: str) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    trusted = other if names.startswith("IP") else authority
    tls = Tls(authority.issue("worker", names), trusted.cert)
    async with two_nodes(tokens, SECRET, SECRET, tls=(tls, tls)) as (front, owner):
        status, said = await asked(front.http.url, *REQUESTS[0])
        assert (status, said["error"]["code"]) == (503, "unavailable")
        assert "INFERD_HTTPS_CAFILE" in said["error"]["message"]
        assert not owner.asked


# ------------------------------------------------------------------------------------------- somebody else's address


Answer = Callable[[web.Request], Any]


@asynccontextmanager
async def rogue(answer: Answer) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """A malicious member of the group with its own address; yields its URL and the headers that it received."""
    sent: list[tuple[str, bytes]] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        sent.append((request.path, str(request.headers).encode() + await request.read()))
        given: web.StreamResponse = await answer(request)
        return given

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", sent
    finally:
        await runner.cleanup()


async def plain(request: web.Request) -> web.Response:
    return web.json_response({"proof": "0" * 64, "jobs": [], "job_id": "j1"}, headers={PARTITIONS: "0,1"})


@pytest.mark.parametrize("relays", [False, True])
async def test_a_worker_without_the_secret_receives_nothing(tokens: TokensFile, *, relays: bool) -> None:
    """Not even if it relays the challenge to a real worker."""
    async with two_nodes(tokens, SECRET, SECRET) as (front, owner):

        async def relay(request: web.Request) -> web.Response:
            async with ClientSession() as session, session.get(owner.url + request.path_qs) as answer:
                return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")

        async with rogue(relay if relays else plain) as (url, sent):
            front.jobs.url, front.streams.others = url, [url]
            for method, path, options in REQUESTS:
                with capture_logs() as logged:
                    status, said = await asked(front.url, method, path, options)
                assert (status, said["error"]["code"]) == (503, "unavailable")
                assert [entry["event"] for entry in logged] == ["peer_unproven"]
            assert {path for path, _ in sent} == {PEER_PATH}
            assert not [body for _, body in sent if TOKENS["default"].encode() in body or b"input_batch" in body]


async def html(_: web.Request) -> web.Response:
    return web.Response(text="<script>alert(1)</script>", content_type="text/html", headers={PARTITIONS: "0,1"})


async def moved(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://evil.example"})


async def odd_status(_: web.Request) -> web.Response:
    return web.json_response({}, status=203, headers={PARTITIONS: "0,1"})


async def huge(_: web.Request) -> web.Response:
    return web.Response(body=b" " * (JSON_BYTES_MAX + 1), content_type="application/json", headers={PARTITIONS: "0,1"})


async def unknown_error(_: web.Request) -> web.Response:
    return web.json_response({"error": {"code": "made_up", "message": "<b>"}}, status=418, headers={"Set-Cookie": "a"})


async def unauthorized(_: web.Request) -> web.Response:
    fault = {"error": {"code": "unauthorized", "message": "who?"}}
    return web.json_response(fault, status=401, headers={"WWW-Authenticate": "Basic realm=evil"})


async def no_error(_: web.Request) -> web.Response:
    return web.Response(text="<html>", status=500, content_type="text/html")


async def wrong_list(_: web.Request) -> web.Response:
    return web.json_response([{"jobs": [{"job": 1}]}], headers={PARTITIONS: "zero"})


@pytest.mark.parametrize(
    "answer",
    [html, moved, odd_status, huge, unknown_error, unauthorized, no_error, wrong_list],
    ids=lambda a: a.__name__,
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/jobs/j1"), ("GET", "/jobs"), ("POST", "/jobs/j1/cancel")])
async def test_an_invalid_response_is_not_returned(answer: Answer, method: str, path: str) -> None:
    async with two_nodes(None, None, None) as (front, _), rogue(answer) as (url, sent), ClientSession() as session:
        front.jobs.url, front.streams.others = url, [url]
        headers = {"inferd-request": "1", "inferd-tenant": "default"}
        async with session.request(method, front.url + path, headers=headers) as relayed:
            assert (relayed.status, relayed.content_type) == (503, "application/json")
            assert (await relayed.json())["error"]["code"] == "unavailable"
            assert not {"Set-Cookie", "WWW-Authenticate", "Location"} & set(relayed.headers)
        assert sent


async def test_results_have_the_requested_media_type() -> None:
    async with two_nodes(None, None, None) as (front, _), rogue(html) as (url, _), ClientSession() as session:
        front.jobs.url = url
        headers = {"Accept": "text/csv", "inferd-tenant": "default"}
        async with session.get(f"{front.url}/jobs/j1/results", headers=headers) as relayed:
            assert relayed.headers["Content-Type"].startswith("text/csv")
            assert relayed.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_endless_response_is_aborted() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 1_000_000)
            await asyncio.sleep(0)

    async with two_nodes(None, None, None) as (front, _), rogue(endless) as (url, _):
        front.jobs.url = url
        status, said = await asked(front.url, "GET", "/jobs/j1", {})
        assert (status, said["error"]["code"]) == (503, "unavailable")
