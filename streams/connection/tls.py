"""A TLS context that reloads its files when they change, so that renewed certificates need no restart."""

from __future__ import annotations

import logging
import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from inferd.schemas.connection import KafkaConnection

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]
Files = tuple[str | None, ...]
CONTEXTS_MAX = 64


class RenewingContext(ssl.SSLContext):
    """The TLS context of connections. It is recreated before a handshake if one of its files has changed.

    Event loops call `wrap_bio` for each connection. Files that cannot be used, for example during a renewal, are logged
    and read again at the next handshake; until then the previous content is used.
    """

    def __new__(cls, connection: KafkaConnection) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, connection: KafkaConnection) -> None:
        """Raises `OSError` or `ssl.SSLError` if a file cannot be used."""
        self._connection = connection
        self._stamp, self._current = _load(connection)

    @property
    def files(self) -> Files:
        """The files of the certificate authority, certificate and key."""
        return files_of(self._connection)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self._renew()
        return self._current.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._renew()
        return self._current.wrap_socket(*args, **kwargs)

    def _renew(self) -> None:
        try:
            if _stamp_of(self._connection) != self._stamp:
                self._stamp, self._current = _load(self._connection)
                log.info("the changed TLS files were read")
        except OSError as error:
            log.warning("the changed TLS files cannot be used, the previous ones stay in use: %s", error)


@lru_cache(maxsize=CONTEXTS_MAX)
def tls_context(connection: KafkaConnection) -> RenewingContext:
    """The TLS context of a connection, shared by all its clients. Raises `OSError` or `ssl.SSLError` if a file cannot
    be used."""
    return RenewingContext(connection)


def files_of(connection: KafkaConnection) -> Files:
    """The files of the certificate authority, certificate and key."""
    return (connection.ssl_cafile, connection.ssl_certfile, connection.ssl_keyfile)


def _load(connection: KafkaConnection) -> tuple[Stamp, ssl.SSLContext]:
    # Read the stamp first, so that a change while the files are read counts as another change.
    stamp, context = _stamp_of(connection), connection.ssl_context()
    assert context is not None
    return stamp, context


def _stamp_of(connection: KafkaConnection) -> Stamp:
    """A value that changes with the files. Raises `OSError` if one is missing."""
    states = [Path(name).stat() for name in files_of(connection) if name]
    return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)
