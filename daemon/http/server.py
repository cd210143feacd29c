"""The server around the routes: where it listens, and what it says where it cannot."""

from __future__ import annotations

import errno

from aiohttp import web

from daemon.settings import Settings
from schemas.errors import ServerError

LINE_BYTES_MAX = 8_190
HEADER_BYTES_MAX = 8_190
KEEPALIVE_S = 30.0
CLOSE_TIMEOUT_S = 1.0


class HttpServer:
    """Serves an application on the host and port of the settings, on the running event loop."""

    def __init__(self, settings: Settings, app: web.Application) -> None:
        self._host, self._port = settings.http_host, settings.http_port
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            shutdown_timeout=CLOSE_TIMEOUT_S,
        )

    @property
    def port(self) -> int:
        """The port that it listens on, also where the settings left the choice open."""
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """Where to reach it from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 (asked about, not bound)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self) -> None:
        """Listens. `ServerError` naming the setting where the port is taken or the host is not this machine's."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ServerError(self._reason(error)) from None

    async def stop(self) -> None:
        """Closes the port, and the connections once they are answered."""
        await self._runner.cleanup()

    def _reason(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"INFERD_HTTP_PORT={self._port} cannot be used: another process listens on that port of {self._host}."
                " Stop it, or choose another port (0 takes a free one)"
            )
        if error.errno == errno.EACCES:
            return (
                f"INFERD_HTTP_PORT={self._port} cannot be used: this user may not listen on it. Choose one above 1023"
            )
        return (
            f"INFERD_HTTP_HOST={self._host} cannot be used ({error.strerror or error}): it must be an address of ours"
        )
