"""TLS of the HTTP server: certificates that are renewed, files that cannot be used, requests between workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import ClientSession, TCPConnector

from inferd.daemon.http.core.server import HttpServer, Listener
from inferd.daemon.http.core.tls import peer_context, server_context
from inferd.daemon.settings.checks import check_worker, worker_warnings
from inferd.daemon.settings.settings import Settings
from inferd.daemon.settings.table import SettingsError
from inferd.schemas.errors import ServerError
from tests.fixtures.certificates import Authority, Pair
from tests.unit.daemon.http.fake_http_services import FakeWorker


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Pair:
    """Files of its own, which a test may change."""
    made = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    made.replace_by(authority.issue("first"))
    return made


@dataclass
class Site:
    """A server with TLS, and the client's authority."""

    http: HttpServer
    cafile: Path

    def session(self) -> ClientSession:
        return ClientSession(connector=TCPConnector(ssl=peer_context(str(self.cafile))))

    async def get(self, session: ClientSession, path: str = "/livez") -> int:
        async with session.get(f"{self.http.tls_url}{path}") as answer:
            await answer.read()
            return answer.status

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        port = int((self.http.tls_url or "").rpartition(":")[2])
        return await asyncio.open_connection("127.0.0.1", port, ssl=peer_context(str(self.cafile)))

    async def shown(self) -> str:
        """The common name of the certificate that a new connection is shown."""
        _, writer = await self.opened()
        certificate = writer.get_extra_info("peercert")
        writer.close()
        return str(dict(item[0] for item in certificate["subject"])["commonName"])


async def serving(pair: Pair, authority: Authority, tmp_path: Path) -> Site:
    tls = Listener("127.0.0.1", 0, server_context(str(pair.cert), str(pair.key)))
    http = HttpServer(FakeWorker(tmp_path / "uploads").app, "127.0.0.1", 0, tls=tls)
    await http.start()
    return Site(http, authority.cert)


@pytest.fixture
async def site(pair: Pair, authority: Authority, tmp_path: Path) -> AsyncIterator[Site]:
    made = await serving(pair, authority, tmp_path)
    yield made
    await made.http.stop()


async def test_both_ports_answer(site: Site) -> None:
    async with site.session() as session:
        assert await site.get(session) == 200
        async with session.get(f"{site.http.url}/livez") as answer:
            assert answer.status == 200
        async with session.post(f"{site.http.tls_url}/predict/churn", json={"input_data": [1, 2]}) as answer:
            assert answer.status == 200
        own = {"Origin": site.http.tls_url or ""}
        async with session.post(
            f"{site.http.tls_url}/predict/churn", json={"input_data": [1, 2]}, headers=own
        ) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_renewed_certificate_is_shown_and_open_connections_stay(
    make: Callable[[], asyncio.AbstractEventLoop],
    pair: Pair,
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        site = await serving(pair, authority, tmp_path)
        reader, writer = await site.opened()

        async def answer() -> bytes:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return await reader.readuntil(b"}")

        assert b" 200 " in await answer()
        assert await site.shown() == "first"
        pair.cert.write_text("half")
        assert await site.shown() == await site.shown() == "first"
        assert caplog.text.count("previous ones stay in use") == 1
        assert str(pair.cert) in caplog.text
        pair.replace_by(authority.issue("second"))
        assert await site.shown() == "second"
        assert b" 200 " in await answer()
        writer.close()
        await site.http.stop()

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(run())


async def test_a_plain_request_to_the_tls_port_and_a_silent_client_do_no_harm(site: Site) -> None:
    port = int((site.http.tls_url or "").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(20):
        assert b" 200 " not in await reader.read()
    writer.close()
    _, silent = await asyncio.open_connection("127.0.0.1", port)
    async with site.session() as session:
        assert await site.get(session) == 200
    silent.close()


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda pair, _authority: pair.cert.unlink(), "No such file"),
        (lambda pair, _authority: pair.key.write_text("nonsense"), "expected PEM files"),
        (lambda pair, authority: pair.key.write_bytes(authority.issue("other").key.read_bytes()), "(?i)mismatch"),
        (lambda pair, _authority: pair.key.write_text(ENCRYPTED), "expected PEM|encrypted"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    pair: Pair, authority: Authority, break_it: Callable[[Pair, Authority], Any], words: str
) -> None:
    break_it(pair, authority)
    with pytest.raises(ServerError, match=words) as refused:
        server_context(str(pair.cert), str(pair.key))
    assert str(pair.cert) in refused.value.message


ENCRYPTED = (
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg=\n"
    "-----END ENCRYPTED PRIVATE KEY-----\n"
)


async def test_a_taken_port_names_the_setting(site: Site, pair: Pair, tmp_path: Path) -> None:
    port = int((site.http.tls_url or "").rpartition(":")[2])
    tls = Listener("127.0.0.1", port, server_context(str(pair.cert), str(pair.key)))
    second = HttpServer(FakeWorker(tmp_path / "second").app, "127.0.0.1", 0, tls=tls)
    with pytest.raises(ServerError, match=f"INFERD_HTTPS_PORT={port} cannot be used: another process"):
        await second.start()


# ------------------------------------------------------------------------------------------------------ settings


def problems(**flags: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        check_worker(Settings.from_environment({}, flags))
    return refused.value.problems


def test_settings_of_https(pair: Pair, tmp_path: Path) -> None:
    files = {"https_certfile": str(pair.cert), "https_keyfile": str(pair.key)}
    check_worker(Settings.from_environment({}, {"https_port": "0", **files}))
    assert len(problems(**files)) == 2
    assert problems(https_port="8443") == ("INFERD_HTTPS_CERTFILE is not set: INFERD_HTTPS_PORT=8443 needs it",)
    (problem,) = problems(https_port="8443", https_host="0.0.0.0", **files)
    assert problem.startswith("INFERD_HTTPS_HOST=0.0.0.0 is not allowed")
    open_to_all = {"https_port": "8443", "https_host": "0.0.0.0", "insecure_http": "true", **files}
    (warning,) = worker_warnings(Settings.from_environment({}, open_to_all))
    assert "INFERD_HTTP_ADVERTISED_URL" in warning
    (problem,) = problems(https_port="8443", https_certfile=str(pair.cert))
    assert problem.startswith("INFERD_HTTPS_CERTFILE, INFERD_HTTPS_KEYFILE cannot be used")
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("nonsense")
    (problem,) = problems(https_cafile=str(nonsense))
    assert problem.startswith("INFERD_HTTPS_CAFILE cannot be used")
