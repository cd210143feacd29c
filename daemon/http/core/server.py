"""The listening socket of an application, and the errors if it cannot listen."""

from __future__ import annotations

import asyncio
import errno

from aiohttp import web

from inferd.daemon.http.core.connections import Connection
from inferd.schemas.errors import ServerError

CLOSE_TIMEOUT_S = 1.0
BACKLOG = 128


class HttpServer:
    """Serves an application on a host and port, on the running event loop."""

    def __init__(self, app: web.Application, host: str, port: int, *, idle_timeout_s: float = 30.0) -> None:
        """`idle_timeout_s`: how long a connection may be idle, and how long the headers of a request may take."""
        self._host, self._port, self._idle_timeout_s = host, port, idle_timeout_s
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S)
        self._listening: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port it listens on; the one chosen by the system for port 0."""
        assert self._listening is not None
        return int(self._listening.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The URL that reaches it from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 (compared, not bound)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self) -> None:
        """Starts listening. Raises `ServerError`, naming the setting, if the host or port cannot be used."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        loop, idle_timeout_s = asyncio.get_running_loop(), self._idle_timeout_s
        try:
            self._listening = await loop.create_server(
                lambda: Connection(server, idle_timeout_s), self._host, self._port, backlog=BACKLOG
            )
        except OSError as error:
            await self._runner.cleanup()
            raise ServerError(self._reason(error)) from None

    async def stop(self) -> None:
        """Stops listening and closes each connection once its response is sent."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    def _reason(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"INFERD_HTTP_PORT={self._port} cannot be used: another process listens on that port of {self._host}."
                " Stop it, or choose another port (0 takes a free one)"
            )
        if error.errno == errno.EACCES:
            return f"INFERD_HTTP_PORT={self._port} cannot be used: permission denied. Choose a port above 1023"
        return (
            f"INFERD_HTTP_HOST={self._host} cannot be used ({error.strerror or error}): it must be an address of this"
            " machine"
        )
