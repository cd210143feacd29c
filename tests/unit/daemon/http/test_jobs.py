"""Jobs over HTTP: uploads, aborted responses, and requests forwarded to the owner of a job."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgpack
import pytest
from aiohttp import ClientPayloadError, ClientSession, web
from aiohttp.test_utils import unused_port

from inferd.daemon.http.core.application import AppLimits, create_app
from inferd.daemon.http.core.errors import Respond, UnavailableError
from inferd.daemon.http.core.peers import FORWARDED
from inferd.daemon.http.core.server import HttpServer
from inferd.daemon.http.routes.forwarding import PARTITIONS, Forwarding
from inferd.daemon.http.routes.jobs import add_jobs
from inferd.daemon.http.worker.services import StreamsJobs
from inferd.schemas.codecs import (
    JSON,
    Codec,
)
from inferd.schemas.errors import JobExpiredError, ServerError
from inferd.streams.jobs.errors import NotOwnerError
from tests.unit.daemon.http.fake_http_services import FakeJobs, FakeWorker

JOB = {"job_id": "j1", "model_id": "churn", "input_batch": [[1], [2], [3]]}
NDJSON = {"Content-Type": "application/x-ndjson"}


class JobStore(FakeJobs):
    """Jobs of some partitions; another worker, at `url`, owns the others."""

    def __init__(self, partitions: frozenset[int] = frozenset({0, 1}), *, mine: bool = True) -> None:
        super().__init__()
        self.mine, self.owned = mine, partitions
        self.url: str | None = None
        self.count = 2
        self.starting = False

    def partitions(self, _tenant: str) -> int:
        return self.count

    def owned_partitions(self, tenant: str) -> frozenset[int]:
        if self.starting:
            raise UnavailableError("starting")
        return self.owned

    async def submit(self, tenant: str, job_id: str | None, message: bytes, codec: Codec) -> bytes:
        self._check_mine()
        return await super().submit(tenant, job_id, message, codec)

    async def upload(self, tenant: str, job_id: str | None, opening: bytes, rows: AsyncIterator[bytes]) -> bytes:
        self._check_mine()
        return await super().upload(tenant, job_id, opening, rows)

    def _check(self, tenant: str, job_id: str) -> None:
        self._check_mine()
        super()._check(tenant, job_id)

    def _check_mine(self) -> None:
        if not self.mine:
            raise NotOwnerError(self.url)


class Streams:
    """Streams with jobs and peers."""

    def __init__(self, jobs: JobStore) -> None:
        self.jobs = jobs
        self.others: Sequence[str] = ()

    def peers(self) -> frozenset[str]:
        return frozenset(self.others)


class Node:
    """One worker: its jobs, the requests it received, and its URL."""

    def __init__(self, jobs: JobStore) -> None:
        self.jobs, self.streams, self.asked = jobs, Streams(jobs), list[web.Request]()
        services = StreamsJobs()
        services.attach(self.streams)
        app = create_app(limits=AppLimits(read_timeout_s=0.3, body_bytes_max=10_000))
        asked = self.asked

        @web.middleware
        async def note(request: web.Request, handler: Respond) -> web.StreamResponse:
            asked.append(request)
            return await handler(request)

        app.middlewares.append(note)
        add_jobs(app, services, Forwarding(services))
        self.http = HttpServer(app, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        return self.http.url


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Node, Node]]:
    """A worker that owns no job, and one that owns all jobs."""
    front, owner = Node(JobStore(frozenset({0}), mine=False)), Node(JobStore(frozenset({1})))
    await front.http.start()
    await owner.http.start()
    front.jobs.url, front.streams.others, owner.streams.others = owner.url, [owner.url], [front.url]
    try:
        yield front, owner
    finally:
        await front.http.stop()
        await owner.http.stop()


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[Node, Node]]:
    async with two_nodes() as made:
        yield made


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as made:
        yield made


async def answer_of(session: ClientSession, method: str, url: str, **options: Any) -> tuple[int, str, Any]:
    """Status, content-type and body, which is JSON, or text."""
    async with session.request(method, url, **options) as answer:
        body = await answer.text()
        is_json = answer.content_type == "application/json"
        return answer.status, answer.headers["Content-Type"], json.loads(body) if is_json else body


def error_of(answer: tuple[int, str, Any]) -> tuple[int, str]:
    return answer[0], answer[2]["error"]["code"]


# ---------------------------------------------------------------------------------------------------------- forwarding


async def test_the_owners_response_is_returned_unchanged(nodes: tuple[Node, Node], session: ClientSession) -> None:
    front, owner = nodes
    opened = await answer_of(session, "POST", f"{front.url}/jobs", json=JOB)
    assert (opened[0], opened[2]["job_id"]) == (202, "j1")
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "x")):
        asked = [await answer_of(session, method, f"{node.url}/jobs/j1{path}?from_row=1") for node in nodes]
        assert asked[0] == asked[1]
    headers = {"Accept": "text/csv", "inferd-tenant": "default", "traceparent": "00-1"}
    kept_back = {"Authorization": "Bearer t", "Cookie": "a=b", "X-Other": "c"}
    async with session.get(f"{front.url}/jobs/j1/results?from_row=2&a=%26", headers=headers | kept_back) as results:
        assert await results.text() == "row,prediction,error_code,error_message\n2,0.25,,\n"
    seen = owner.asked[-1]
    assert {name: seen.headers[name] for name in headers} == headers
    assert not kept_back.keys() & set(seen.headers)
    assert (seen.headers[FORWARDED], seen.headers["Host"]) == ("1", owner.url.removeprefix("http://"))
    assert seen.rel_url.raw_path_qs == "/jobs/j1/results?from_row=2&a=%26"


async def test_a_compressed_body_is_forwarded_decompressed(nodes: tuple[Node, Node], session: ClientSession) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    body = gzip.compress(json.dumps(JOB).encode())
    assert (await answer_of(session, "POST", f"{nodes[0].url}/jobs", data=body, headers=headers))[0] == 202
    assert json.loads(nodes[1].jobs.messages["default", "j1"])["input_batch"] == [[1], [2], [3]]


@pytest.mark.parametrize("place", [0, 1])
async def test_an_upload_is_forwarded_as_a_stream(nodes: tuple[Node, Node], session: ClientSession, place: int) -> None:
    """The transfer takes longer than the read timeout and exceeds the limit of a body."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"[1.5]\n" * 1_000
            await asyncio.sleep(0.1)

    labels = quote('{"team":"risk"}')
    url = f"{nodes[place].url}/jobs?model=churn&job_id=j2&outputs=raw,prediction&chunk_rows=100&labels={labels}"
    assert (await answer_of(session, "POST", url, data=body(), headers=NDJSON))[0] == 202
    opening, *messages = nodes[1].jobs.uploaded
    assert msgpack.unpackb(opening)["labels"] == {"team": "risk"}
    assert msgpack.unpackb(opening)["model_id"] == "churn"
    assert sum(len(json.loads(message)["input_batch"]) for message in messages) == 5_000


@pytest.mark.parametrize("place", [0, 1])
async def test_a_stalled_upload_times_out(nodes: tuple[Node, Node], session: ClientSession, place: int) -> None:
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"[1.5]\n"
        await gate.wait()

    try:
        url = f"{nodes[place].url}/jobs?model=churn"
        answer = await answer_of(session, "POST", url, data=body(), headers=NDJSON)
        assert error_of(answer) == (408, "request_timeout")
    finally:
        gate.set()


async def test_a_request_is_forwarded_once(nodes: tuple[Node, Node], session: ClientSession) -> None:
    front, owner = nodes
    owner.jobs.mine, owner.jobs.url = False, front.url
    for method, path in (("GET", "/jobs/j1"), ("POST", "/jobs/j1/cancel")):
        assert error_of(await answer_of(session, method, front.url + path)) == (503, "unavailable")
    assert error_of(await answer_of(session, "POST", f"{front.url}/jobs", json=JOB)) == (503, "unavailable")
    assert (len(front.asked), len(owner.asked)) == (3, 3)


async def test_a_job_without_an_owner_is_unavailable(nodes: tuple[Node, Node], session: ClientSession) -> None:
    nodes[0].jobs.url = None
    async with session.get(f"{nodes[0].url}/jobs/j1") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    nodes[0].jobs.url = f"http://127.0.0.1:{unused_port()}"
    for method, path in (("GET", "/jobs/j1"), ("POST", "/jobs?model=m")):
        async with session.request(method, nodes[0].url + path, headers=NDJSON, data=b"[1]") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert nodes[0].jobs.url in (await answer.json())["error"]["message"]


@pytest.mark.parametrize("place", [0, 1])
async def test_an_aborted_response_is_visibly_incomplete(
    nodes: tuple[Node, Node], session: ClientSession, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    async def broken(*_: Any, **__: Any) -> AsyncIterator[bytes]:
        yield b'{"row":0,"prediction":1}\n'
        raise ServerError("the broker is gone")

    await nodes[1].jobs.submit("default", "j1", b'{"type":"submit","model_id":"m","input_batch":[[1]]}', JSON)
    monkeypatch.setattr(nodes[1].jobs, "results", broken)
    with pytest.raises(ClientPayloadError):
        await answer_of(session, "GET", f"{nodes[place].url}/jobs/j1/results")


async def test_an_error_before_the_first_row_has_its_status(
    nodes: tuple[Node, Node], session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def expired(*_: Any, **__: Any) -> AsyncIterator[bytes]:
        for _once in range(1):
            raise JobExpiredError("past its retention")
        yield b""

    await nodes[1].jobs.submit("default", "j1", b'{"type":"submit","model_id":"m","input_batch":[[1]]}', JSON)
    monkeypatch.setattr(nodes[1].jobs, "results", expired)
    for node in nodes:
        for accept in ("text/csv", "application/vnd.apache.parquet", "*/*"):
            url = f"{node.url}/jobs/j1/results"
            answer = await answer_of(session, "GET", url, headers={"Accept": accept})
            assert error_of(answer) == (410, "job_expired")


# ----------------------------------------------------------------------------------------------------------- the list


async def test_the_list_contains_the_jobs_of_all_workers(nodes: tuple[Node, Node], session: ClientSession) -> None:
    for number in range(6):
        nodes[number % 2].jobs.messages["default", f"j{number}"] = b""
    for node in nodes:
        for query, expected in (("", "012345"), ("?limit=3", "012"), ("?limit=2&after=j2", "34"), ("?limit=0", "")):
            _, _, listed = await answer_of(session, "GET", f"{node.url}/jobs{query}")
            assert [job["job_id"] for job in listed["jobs"]] == [f"j{number}" for number in expected]
    async with session.get(f"{nodes[0].url}/jobs", headers={FORWARDED: "1"}) as alone:
        assert alone.headers[PARTITIONS] == "0"
        assert [job["job_id"] for job in (await alone.json())["jobs"]] == ["j0", "j2", "j4"]


Break = Callable[[Node, Node], None]


def gone(front: Node, owner: Node) -> None:
    front.streams.others = [owner.url, f"http://127.0.0.1:{unused_port()}"]


def starting(front: Node, owner: Node) -> None:
    owner.jobs.starting = True


def restoring(front: Node, owner: Node) -> None:
    owner.jobs.owned = frozenset()


@pytest.mark.parametrize(("break_", "named"), [(gone, "127.0.0.1"), (starting, "127.0.0.1"), (restoring, "[1]")])
async def test_an_incomplete_list_is_unavailable(
    nodes: tuple[Node, Node], session: ClientSession, break_: Break, named: str
) -> None:
    break_(*nodes)
    answer = await answer_of(session, "GET", f"{nodes[0].url}/jobs")
    assert error_of(answer) == (503, "unavailable")
    assert named in answer[2]["error"]["message"]


# ----------------------------------------------------------------------------------------------------------- one worker


async def test_before_the_streams_run_jobs_are_unavailable() -> None:
    jobs = StreamsJobs()
    assert jobs.peers() == frozenset()
    with pytest.raises(UnavailableError, match="starting"):
        await jobs.status("default", "j1")
    with pytest.raises(UnavailableError, match="starting"):
        await anext(jobs.results("default", "j1"))


async def test_a_body_too_large_for_json_is_accepted_as_ndjson(
    nodes: tuple[Node, Node], session: ClientSession
) -> None:
    answer = await answer_of(session, "POST", f"{nodes[1].url}/jobs", json={**JOB, "input_batch": [[1]] * 5_000})
    assert error_of(answer) == (413, "too_large")
    assert "application/x-ndjson" in answer[2]["error"]["message"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 422, "invalid_value"),
        ("?model=a%20b", 400, "invalid_id"),
        ("?model=m&job_id=%20", 400, "invalid_id"),
        ("?model=m&outputs=raw,raw", 422, "invalid_value"),
        ("?model=m&chunk_rows=0", 422, "invalid_value"),
        ("?model=m&deadline=soon", 422, "invalid_value"),
        ("?model=m&labels=team", 422, "invalid_value"),
        ("?model=m&labels=%7B%22run%22:7%7D", 422, "invalid_value"),
        ("?model=m&labels=%7B%22run%22:%22a%22,%22run%22:%22b%22%7D", 422, "invalid_value"),
    ],
)
async def test_an_invalid_query_opens_no_job(
    nodes: tuple[Node, Node], session: ClientSession, query: str, status: int, code: str
) -> None:
    answer = await answer_of(session, "POST", f"{nodes[1].url}/jobs{query}", data=b"[1]\n", headers=NDJSON)
    assert error_of(answer) == (status, code)


async def test_the_fake_worker_accepts_uploads(tmp_path: Path, session: ClientSession) -> None:
    http = HttpServer(FakeWorker(tmp_path).app, "127.0.0.1", 0)
    await http.start()
    try:
        url = f"{http.url}/jobs?model=m&job_id=j"
        assert (await answer_of(session, "POST", url, data=b"[1]\n[2]", headers=NDJSON))[0] == 202
        assert error_of(await answer_of(session, "POST", url, data=b"[1]\n[2", headers=NDJSON)) == (
            422,
            "invalid_value",
        )
    finally:
        await http.stop()
