"""TLS of the HTTP server and of the requests between workers; renewed files need no restart."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from inferd.schemas.connection import client_context
from inferd.schemas.errors import ServerError
from inferd.streams.connection import RenewingContext


def server_context(certfile: str, keyfile: str | None) -> RenewingContext:
    """The context of a server whose certificate chain and key are in these PEM files; without `keyfile`, both in one.

    Raises `ServerError` if the files cannot be used.
    """

    def load() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certfile, keyfile, password=_no_password)
        return context

    return _renewing((certfile, keyfile), load, server=True)


def peer_context(cafile: str) -> RenewingContext:
    """The context of requests to workers whose certificates the authorities of `cafile` signed.

    Raises `ServerError` if the file cannot be used.
    """

    return _renewing((cafile,), lambda: client_context(cafile, None, None))


def _renewing(
    files: tuple[str | None, ...], load: Callable[[], ssl.SSLContext], *, server: bool = False
) -> RenewingContext:
    try:
        return RenewingContext(files, load, server=server)
    except OSError as error:
        names = ", ".join(filter(None, files))
        raise ServerError(f"{names}: {error.strerror or error}; expected PEM files") from None


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal."""
    raise OSError("the key is encrypted: decrypt it with `openssl pkey`")
