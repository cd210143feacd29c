"""A TLS context that reloads its files when they change, so that renewed certificates need no restart."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from inferd.schemas.connection import KafkaConnection

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int] | None, ...]
Files = tuple[str | None, ...]
CONTEXTS_MAX = 64


class RenewingContext(ssl.SSLContext):
    """The TLS context of connections. It is recreated before a handshake if one of its files has changed.

    Event loops call `wrap_bio` for each connection. Files that cannot be used, for example during a renewal, are logged
    once and read again at the next handshake; until then the previous content is used. Open connections stay open.
    """

    def __new__(cls, files: Files, load: Callable[[], ssl.SSLContext], *, server: bool = False) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: Files, load: Callable[[], ssl.SSLContext], *, server: bool = False) -> None:
        """`files`: those that `load` reads; `server`: the context is a server's. Raises what `load` raises: `OSError`
        or `ssl.SSLError` if a file cannot be used."""
        self.files = files
        self._load = load
        # Read the stamp first, so that a change while the files are read counts as another change.
        self._stamp = _stamp_of(files)
        self._failed: Stamp | None = None
        self._current = load()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self._renew()
        return self._current.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._renew()
        return self._current.wrap_socket(*args, **kwargs)

    def _renew(self) -> None:
        if (stamp := _stamp_of(self.files)) == self._stamp:
            return
        try:
            self._current = self._load()
        except OSError as error:
            if stamp != self._failed:
                names = ", ".join(name for name in self.files if name)
                log.warning(
                    "the changed TLS files cannot be used, the previous ones stay in use: %s (%s)", error, names
                )
            self._failed = stamp
        else:
            self._stamp = stamp
            log.info("the changed TLS files were read")


@lru_cache(maxsize=CONTEXTS_MAX)
def tls_context(connection: KafkaConnection) -> RenewingContext:
    """The TLS context of a connection, shared by all its clients. Raises `OSError` or `ssl.SSLError` if a file cannot
    be used."""

    def load() -> ssl.SSLContext:
        context = connection.ssl_context()
        assert context is not None
        return context

    return RenewingContext(files_of(connection), load)


def files_of(connection: KafkaConnection) -> Files:
    """The files of the certificate authority, certificate and key."""
    return (connection.ssl_cafile, connection.ssl_certfile, connection.ssl_keyfile)


def _stamp_of(files: Files) -> Stamp:
    """A value that changes with the files."""
    return tuple(_state(Path(name)) for name in files if name)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino, state.st_size
