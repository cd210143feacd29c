"""`/cluster…`: every worker answers for all, tells a caller no more than its token may see, and waits for nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.application import create_app
from inferd.daemon.http.core.compression import COMPRESSED_FROM_BYTES
from inferd.daemon.http.core.peers import PEER_PATH, Peers, PeerSecret, add_peer
from inferd.daemon.http.core.server import HttpServer
from inferd.daemon.http.core.tokens import TokensFile
from inferd.daemon.http.routes.cluster import add_cluster
from inferd.daemon.http.routes.forwarding import Forwarding
from inferd.daemon.http.routes.observation import add_observation
from inferd.daemon.http.routes.openapi import ROLES_OF_OPERATIONS
from inferd.daemon.settings.settings import Settings
from inferd.daemon.telemetry.status import StatusBoard
from tests.fixtures.http_client import TOKENS, write_tokens
from tests.unit.daemon.fake_streams import FakeStreams, model, partition, snapshot, tenant

SECRET, OTHER = PeerSecret((b"s" * 32,)), PeerSecret((b"o" * 32,))
TENANTS = ("default", "other")


class Worker:
    """One worker of two tenants, with a sample of each in its history."""

    def __init__(self, name: str, secret: PeerSecret | None, tokens: TokensFile | None) -> None:
        self.others: set[str] = set()
        self.asked: list[web.Request] = []
        settings = Settings.from_environment({"INFERD_WORKER_ID": name})
        streams = self.streams = FakeStreams(settings.streams(), lambda _reason, _code: None)
        streams.said = snapshot(
            tenants=tuple(map(tenant, TENANTS)),
            models=(model("mine"), model("secret", tenant="other")),
            partitions=tuple(partition(f"inferd.{each}.requests") for each in TENANTS),
        )
        board = StatusBoard(settings)
        board.attach(streams)
        board.enter("running", "")
        now = iter((1_800_000_001.0, 1_800_000_006.0))
        board.ring._clock = lambda: next(now)
        for _ in range(2):
            board.ring.observe(streams.said, 1_000)
        access = Access(TENANTS, tokens, peers=Peers(secret, lambda: self.url))
        app = create_app(access=access, roles=ROLES_OF_OPERATIONS)
        add_observation(app, board)
        add_cluster(app, Forwarding(self))
        add_peer(app)

        @web.middleware
        async def note(request: web.Request, handler: Any) -> Any:
            self.asked.append(request)
            return await handler(request)

        app.middlewares.append(note)
        self.http = HttpServer(app, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        return self.http.url

    def peers(self) -> frozenset[str]:
        return frozenset(self.others)

    def partitions(self, _tenant: str) -> int:
        return 4

    def owned_partitions(self, _tenant: str) -> frozenset[int]:
        return frozenset()


@asynccontextmanager
async def two_workers(tokens: TokensFile | None, *secrets: PeerSecret | None) -> AsyncIterator[tuple[Worker, Worker]]:
    workers = Worker("w1", secrets[0], tokens), Worker("w2", secrets[1], tokens)
    for worker in workers:
        await worker.http.start()
    workers[0].others.add(workers[1].url)
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.http.stop()


@pytest.fixture
def tokens(tmp_path: Path) -> TokensFile:
    return TokensFile(write_tokens(tmp_path))


async def ask(worker: Worker, path: str, token: str | None = None) -> tuple[int, Any, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with ClientSession() as session, session.get(worker.url + path, headers=headers) as answer:
        return answer.status, await answer.json(), await answer.text()


async def test_any_worker_shows_all_of_them() -> None:
    async with two_workers(None, None, None) as (front, other):
        _, said, _ = await ask(front, "/cluster")
        assert [each["url"] for each in said["workers"]] == [front.url, other.url]
        assert [each["status"]["worker"] for each in said["workers"]] == ["w1", "w2"]
        _, said, _ = await ask(front, "/cluster/history")
        assert [len(each["history"]["samples"]) for each in said["workers"]] == [1, 1]
        _, said, _ = await ask(front, "/cluster/history?after=1800000005")
        assert [each["history"]["samples"] for each in said["workers"]] == [[], []]


async def test_a_long_answer_of_another_worker_is_understood() -> None:
    # Long answers are compressed for clients that accept it.
    async with two_workers(None, None, None) as (front, other):
        other.streams.said = snapshot(models=tuple(model(f"model-{number}") for number in range(200)))
        _, said, _ = await ask(front, "/cluster")
        assert len(msgspec.json.encode(said["workers"][1])) > 2 * COMPRESSED_FROM_BYTES
        assert len(said["workers"][1]["status"]["models"]) == 200


@pytest.mark.parametrize("path", ["/cluster", "/cluster/history"])
async def test_a_tenant_sees_only_its_own_part_of_every_worker(tokens: TokensFile, path: str) -> None:
    async with two_workers(tokens, SECRET, SECRET) as (front, other):
        status, said, text = await ask(front, path, TOKENS["default"])
        assert (status, len(said["workers"])) == (200, 2)
        assert "secret" not in text
        for each in said["workers"]:
            if path == "/cluster":
                assert [item["tenant"] for item in each["status"]["tenants"]] == ["default"]
                assert each["status"]["throughput"] is None
            else:
                (sample,) = each["history"]["samples"]
                assert (sample["lag"], sample["resident_bytes"]) == (20, None)
        for request in other.asked:
            assert "Authorization" not in request.headers


async def test_an_operator_sees_all_of_every_worker(tokens: TokensFile) -> None:
    async with two_workers(tokens, SECRET, SECRET) as (front, _):
        _, said, _ = await ask(front, "/cluster", TOKENS["*"])
        for each in said["workers"]:
            assert [item["tenant"] for item in each["status"]["tenants"]] == ["default", "other"]
        _, said, _ = await ask(front, "/cluster/history", TOKENS["*"])
        assert [each["history"]["samples"][0]["lag"] for each in said["workers"]] == [40, 40]


@pytest.mark.parametrize("path", ["/history", "/cluster", "/cluster/history"])
async def test_the_cluster_needs_a_token_if_there_are_some(tokens: TokensFile, path: str) -> None:
    async with two_workers(tokens, SECRET, SECRET) as (front, _):
        assert (await ask(front, path))[0] == 401
        assert (await ask(front, path, "wrong"))[0] == 401


@pytest.mark.parametrize("secrets", [(None, None), (SECRET, OTHER), (SECRET, None)])
async def test_a_worker_that_is_not_known_to_belong_to_the_group_is_not_asked(
    tokens: TokensFile, secrets: tuple[Any, Any]
) -> None:
    async with two_workers(tokens, *secrets) as (front, other):
        status, said, _ = await ask(front, "/cluster", TOKENS["*"])
        assert (status, said["workers"][0]["status"]["worker"]) == (200, "w1")
        assert "INFERD_HTTP_FORWARDING_SECRET_FILE" in said["workers"][1]["error"]
        assert {request.path for request in other.asked} <= {PEER_PATH}


async def test_a_worker_that_does_not_answer_is_listed_with_the_reason() -> None:
    async with two_workers(None, None, None) as (front, other):
        url = other.url
        await other.http.stop()
        status, said, _ = await ask(front, "/cluster")
        assert (status, said["workers"][1]["url"]) == (200, url)
        assert "does not respond" in said["workers"][1]["error"]


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 30, "\u0662"])
async def test_a_wrong_time_is_an_error(after: str) -> None:
    async with two_workers(None, None, None) as (front, _):
        for path in ("/history", "/cluster/history"):
            status, said, _ = await ask(front, f"{path}?after={after}")
            assert (status, said["error"]["code"]) == (422, "invalid_value")
