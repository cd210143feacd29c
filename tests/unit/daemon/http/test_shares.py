"""Slots shared by tenants: each tenant gets its share, no slot is wasted, and slow uploads are aborted."""

from __future__ import annotations

import asyncio
import io
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.admission import Admission
from inferd.daemon.http.core.application import AppLimits
from inferd.daemon.http.core.server import HttpServer
from inferd.daemon.http.core.shares import Shares
from inferd.daemon.http.core.tokens import TokensFile
from inferd.daemon.http.routes.uploads import UPLOADS_MAX
from inferd.schemas.errors import QuotaExceededError
from tests.fixtures.http_client import TOKENS, write_tokens
from tests.unit.daemon.http.fake_http_services import FakeWorker

BYTES = "application/octet-stream"
TENANTS = ("default", "other")


@given(slots=st.integers(1, 40), tenants=st.integers(1, 12), asked=st.lists(st.integers(0, 11), max_size=120))
def test_a_tenant_gets_its_share_whatever_others_use(slots: int, tenants: int, asked: list[int]) -> None:
    """The worst case: no slot is ever released."""
    shares = Shares(slots, tenants)
    held = [0] * tenants
    with ExitStack() as taken:
        for number in (each % tenants for each in asked):
            with suppress(QuotaExceededError):
                taken.enter_context(shares.slot(str(number), "full"))
                held[number] += 1
        assert shares.taken == sum(held) <= max(slots, tenants)
        for number in range(tenants):
            while held[number] < max(1, slots // (2 * tenants)):
                taken.enter_context(shares.slot(str(number), "full"))
                held[number] += 1
    assert shares.taken == 0


def test_a_single_tenant_has_all_slots() -> None:
    shares = Shares(5)
    with ExitStack() as taken:
        for _ in range(5):
            taken.enter_context(shares.slot("default", "full"))
        with pytest.raises(QuotaExceededError, match="full"):
            taken.enter_context(shares.slot("default", "full"))


@pytest.fixture
async def served(tmp_path: Path) -> Any:
    access = Access(TENANTS, TokensFile(write_tokens(tmp_path)))
    limits = AppLimits(read_timeout_s=30.0)
    admission = Admission(8, tenants=len(TENANTS))
    worker = FakeWorker(tmp_path / "uploads", access=access, admission=admission, limits=limits)
    http = HttpServer(worker.app, "127.0.0.1", 0)
    await http.start()
    yield http
    await http.stop()


def head(path: str, method: str, content_type: str, tenant: str, length: int = 1_000) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}"]
    return "\r\n".join(
        [*lines, f"Content-Length: {length}", f"Authorization: Bearer {TOKENS[tenant]}", "", ""]
    ).encode()


async def begin(http: HttpServer, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(head)
    await writer.drain()
    return reader, writer


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(60):
        return int((await reader.readline()).split()[1])


@pytest.mark.parametrize(
    ("path", "method", "kind"),
    [
        ("/models/m", "PUT", BYTES),
        ("/jobs?model=m", "POST", "application/x-ndjson"),
        ("/predict/m", "POST", "application/json"),
    ],
)
async def test_slow_uploads_of_one_tenant_do_not_affect_others(
    served: HttpServer, path: str, method: str, kind: str
) -> None:
    """The slow clients never send their bodies; in the end their own tenant has no slot left."""
    slow = [await begin(served, head(path, method, kind, "default")) for _ in range(8)]
    try:
        async with ClientSession(headers={"Authorization": f"Bearer {TOKENS['other']}"}) as session:
            for url, given in (
                (f"{served.url}/models/m:1", {"data": b"tree", "headers": {"Content-Type": BYTES}}),
                (f"{served.url}/models/m/aliases/champion", {"json": {"version": 1}}),
            ):
                async with session.put(url, **given) as answer:
                    assert answer.status in (200, 201), await answer.text()
    finally:
        for _, writer in slow:
            writer.close()


async def test_a_tenant_beyond_its_share_is_rejected(served: HttpServer) -> None:
    slow = [await begin(served, head("/models/m", "PUT", BYTES, "default")) for _ in range(UPLOADS_MAX)]
    try:
        done, _ = await asyncio.wait(
            [asyncio.create_task(status_of(reader)) for reader, _ in slow],
            return_when=asyncio.FIRST_COMPLETED,
            timeout=60,
        )
        assert [task.result() for task in done] == [429]
    finally:
        for _, writer in slow:
            writer.close()


@pytest.mark.parametrize(
    ("path", "method", "kind"),
    [
        ("/models/m", "PUT", BYTES),
        ("/models/m", "PUT", "multipart/form-data; boundary=b"),
        ("/jobs?model=m", "POST", "application/x-ndjson"),
        ("/jobs", "POST", "application/json"),
        ("/predict/m", "POST", "application/json"),
    ],
)
async def test_a_trickling_body_is_aborted_by_its_rate(tmp_path: Path, path: str, method: str, kind: str) -> None:
    """Bytes arrive one by one, each within the timeout, but the body is never complete."""
    worker = FakeWorker(tmp_path / "uploads", limits=AppLimits(read_timeout_s=0.3, read_bytes_per_s_min=1_000))
    http = HttpServer(worker.app, "127.0.0.1", 0)
    await http.start()
    reader, writer = await begin(http, head(path, method, kind, "default", 100_000))

    async def trickle() -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    try:
        assert await status_of(reader) == 408
    finally:
        trickling.cancel()
        writer.close()
        await http.stop()


async def test_time_spent_by_the_server_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast upload is accepted, even if the worker takes several times the client's timeout."""
    worker = FakeWorker(tmp_path / "uploads", limits=AppLimits(read_timeout_s=1.5, read_bytes_per_s_min=100_000_000))
    take = worker.jobs.upload

    async def slowly(tenant: str, job_id: str | None, opening: bytes, rows: Any) -> bytes:
        async def slow_rows() -> Any:
            async for message in rows:
                await asyncio.sleep(0.5)
                yield message

        return await take(tenant, job_id, opening, slow_rows())

    monkeypatch.setattr(worker.jobs, "upload", slowly)
    http = HttpServer(worker.app, "127.0.0.1", 0)
    await http.start()
    try:
        async with ClientSession() as session:
            body = io.BytesIO(b"[1.0, 2.0]\n" * 400_000)
            headers = {"Content-Type": "application/x-ndjson"}
            async with session.post(f"{http.url}/jobs?model=m", data=body, headers=headers) as answer:
                assert answer.status == 202, await answer.text()
    finally:
        await http.stop()
