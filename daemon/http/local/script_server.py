"""The listening socket of a script's server; its errors name the arguments `host` and `port`."""

from __future__ import annotations

import errno
import socket

from inferd.daemon.http.core import HttpServer, Listener
from inferd.daemon.loopback import is_loopback
from inferd.schemas.errors import ServerError

PORT_MAX = 65_535


class ScriptServer(HttpServer):
    """A server whose address comes from the arguments `host` and `port`."""

    def _reason(self, listener: Listener, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"port={listener.port} cannot be used: another process listens on that port of {listener.host}."
                " Stop it, or choose another port (0 takes a free one)"
            )
        if error.errno == errno.EACCES:
            return f"port={listener.port} cannot be used: permission denied. Choose a port above 1023"
        return (
            f"host={listener.host!r} cannot be used ({error.strerror or error}): it must be an address of this machine,"
            " such as '127.0.0.1'"
        )


def check_address(host: object, port: object, *, protected: bool) -> None:
    """Raises `ServerError` if a server cannot, or must not, listen on this address."""
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= PORT_MAX:
        raise ServerError(f"port={port!r} cannot be used: expected a number from 0 (a free one) to {PORT_MAX}")
    if not isinstance(host, str) or not host:
        raise ServerError(f"host={host!r} cannot be used: expected a name or an address, such as '127.0.0.1'")
    if is_loopback(host):
        return
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        raise ServerError(f"host={host!r} cannot be used ({error}): use a valid host, such as '127.0.0.1'") from None
    if not protected:
        raise ServerError(
            f"host={host!r} can be reached from other machines without authentication: set a file of bearer tokens"
            " (tokens_file=…), or insecure_http=True"
        )
