"""The listening sockets of an application, and the errors if it cannot listen."""

from __future__ import annotations

import asyncio
import errno
import ssl
from dataclasses import dataclass

from aiohttp import web

from inferd.daemon.http.core.connections import Connection
from inferd.schemas.errors import ServerError

CLOSE_TIMEOUT_S = 1.0
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a server listens; with TLS if there is a `context`."""

    host: str
    port: int
    context: ssl.SSLContext | None = None

    @property
    def settings(self) -> str:
        """How the names of its settings start."""
        return "INFERD_HTTP" if self.context is None else "INFERD_HTTPS"


class HttpServer:
    """Serves an application on a host and port, on the running event loop, and optionally also over TLS."""

    def __init__(
        self, app: web.Application, host: str, port: int, *, idle_timeout_s: float = 30.0, tls: Listener | None = None
    ) -> None:
        """`idle_timeout_s`: how long a connection may be idle, and how long its handshake and the headers of a request
        may take; `tls`: where it listens with TLS, too."""
        self._listeners = [Listener(host, port), *([] if tls is None else [tls])]
        self._idle_timeout_s = idle_timeout_s
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S)
        self._listening: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        """The port without TLS; the one chosen by the system for port 0."""
        return self._port_of(0)

    @property
    def url(self) -> str:
        """The URL that reaches it from this machine, without TLS."""
        return self._url_of(0)

    @property
    def tls_url(self) -> str | None:
        """The URL that reaches it from this machine with TLS, if it listens there."""
        return self._url_of(1) if len(self._listeners) > 1 else None

    async def start(self) -> None:
        """Starts listening. Raises `ServerError`, naming the setting, if a host or port cannot be used."""
        await self._runner.setup()
        for listener in self._listeners:
            try:
                self._listening.append(await self._listen(listener))
            except OSError as error:
                await self.stop()
                raise ServerError(self._reason(listener, error)) from None

    async def stop(self) -> None:
        """Stops listening and closes each connection once its response is sent."""
        for server in self._listening:
            server.close()
        await self._runner.cleanup()

    async def _listen(self, listener: Listener) -> asyncio.Server:
        server, idle_timeout_s = self._runner.server, self._idle_timeout_s
        assert server is not None
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(server, idle_timeout_s),
            listener.host,
            listener.port,
            backlog=BACKLOG,
            ssl=listener.context,
            ssl_handshake_timeout=None if listener.context is None else idle_timeout_s,
        )

    def _port_of(self, number: int) -> int:
        return int(self._listening[number].sockets[0].getsockname()[1])

    def _url_of(self, number: int) -> str:
        listener = self._listeners[number]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)  # noqa: S104 (compared, not bound)
        scheme = "http" if listener.context is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port_of(number)}"

    def _reason(self, listener: Listener, error: OSError) -> str:
        host, port = (f"{listener.settings}_HOST={listener.host}", f"{listener.settings}_PORT={listener.port}")
        if error.errno == errno.EADDRINUSE:
            return (
                f"{port} cannot be used: another process listens on that port of {listener.host}. Stop it, or choose"
                " another port (0 takes a free one)"
            )
        if error.errno == errno.EACCES:
            return f"{port} cannot be used: permission denied. Choose a port above 1023"
        return f"{host} cannot be used ({error.strerror or error}): it must be an address of this machine"
