"""Renewed certificates are used by the next connection, on each event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from inferd.schemas.connection import KafkaConnection
from inferd.streams.connection.tls import RenewingContext, tls_context
from tests.fixtures.certificates import Authority, Pair


class Fleet:
    """A server that requires a client certificate, and a client's files."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.server, self.client = self.authority.issue("server"), self.authority.issue("client")
        self.connection = KafkaConnection(
            security_protocol="SSL",
            ssl_cafile=str(self.authority.cert),
            ssl_certfile=str(self.client.cert),
            ssl_keyfile=str(self.client.key),
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.authority.cert))
        context.load_cert_chain(self.server.cert, self.server.key)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the certificates lack extensions, like most self-made ones
        return context


def renewing(connection: KafkaConnection) -> RenewingContext:
    """A context of its own: `tls_context` returns the one of an earlier test with the same files."""
    return tls_context.__wrapped__(connection)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


async def shown_to_the_server(fleet: Fleet, context: ssl.SSLContext) -> str:
    """The common name of the certificate that a connection with `context` presents."""
    shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert")
        shown.set_result(dict(pair[0] for pair in certificate["subject"])["commonName"])
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0, ssl=fleet.server_context()) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            async with asyncio.timeout(30):
                return await shown
        finally:
            writer.close()


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_renewed_certificate_is_shown_by_the_next_connection(
    fleet: Fleet, make: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    context = renewing(fleet.connection)

    def shown() -> str:
        with asyncio.Runner(loop_factory=make) as runner:
            return runner.run(shown_to_the_server(fleet, context))

    before = shown()
    renewed = fleet.authority.issue(f"{before}-renewed")
    fleet.client.replace_by(renewed)
    assert shown() == f"{before}-renewed"


def test_files_that_cannot_be_used_leave_the_former_ones(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    context = renewing(fleet.connection)
    before = asyncio.run(shown_to_the_server(fleet, context))
    kept = Pair(fleet.client.cert.with_suffix(".kept"), fleet.client.key.with_suffix(".keptkey"))
    kept.replace_by(fleet.client)
    for break_it in (lambda: fleet.client.cert.write_text("half"), fleet.client.key.unlink):
        caplog.clear()
        break_it()
        for _ in range(2):
            assert asyncio.run(shown_to_the_server(fleet, context)) == before
        assert caplog.text.count("previous ones stay in use") == 1
        assert str(fleet.client.cert) in caplog.text
        fleet.client.replace_by(kept)
    fleet.client.replace_by(fleet.authority.issue("after"))
    assert asyncio.run(shown_to_the_server(fleet, context)) == "after"


def test_the_authority_is_renewed_as_well(fleet: Fleet, tmp_path: Path) -> None:
    """A context only ever adds authorities: earlier ones would stay trusted."""
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(fleet.authority.cert.read_bytes())
    context = renewing(KafkaConnection(security_protocol="SSL", ssl_cafile=str(trusted)))
    trusted.write_bytes(Authority(tmp_path, "other").cert.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(shown_to_the_server(fleet, context))


def test_clients_of_one_connection_share_its_context(fleet: Fleet) -> None:
    assert tls_context(fleet.connection) is tls_context(fleet.connection)
    assert isinstance(tls_context(fleet.connection), ssl.SSLContext)


def test_a_first_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        renewing(KafkaConnection(security_protocol="SSL", ssl_cafile=str(tmp_path / "ca.pem")))
