"""Protects servers without tokens from web pages of other sites (cross-site request forgery, DNS rebinding).

A web page can send requests to any address that the visitor's browser reaches, including loopback. Three checks reject
them: `Host` must name this server, which stops DNS rebinding; `Origin` must be the server's own; and a POST needs a
header, or a media type, that browsers send to another origin only after a preflight request, which no route here
allows (Fetch standard, "CORS-safelisted request-header").
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from inferd.daemon.http.core.errors import ForbiddenError
from inferd.daemon.loopback import is_loopback
from inferd.daemon.printable import printable
from inferd.schemas.codecs import content_types
from inferd.schemas.errors import UnsupportedContentTypeError
from inferd.schemas.headers import JSON_LENGTH

REQUEST_HEADER = "inferd-request"
SAFELISTED_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""Media types that browsers send to any origin without a preflight request."""
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5})?)?", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Hosts:
    """Accepted host names: `names`, and always those of loopback."""

    names: frozenset[str] = frozenset()
    any_address: bool = False
    """Also any IP address: DNS rebinding needs a name."""

    @classmethod
    def of(cls, names: Iterable[str], *, any_address: bool = False) -> Hosts:
        """From names and addresses as written in settings."""
        return cls(frozenset(_normalized(name) for name in names), any_address)

    def has(self, host: str) -> bool:
        """Whether `host` (without a port) is accepted."""
        name = _normalized(host)
        if name == "localhost" or name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or (getattr(address, "ipv4_mapped", None) or address).is_loopback


LOOPBACK = Hosts()


def allowed_hosts_of(listens_on: str, allowed: Sequence[str], advertised: str | None = None) -> Hosts | None:
    """Accepted names of a server: the host it listens on, those of the settings, and that of its advertised URL.

    None (any name) if it listens beyond loopback and no name is configured.
    """
    loopback = is_loopback(listens_on)
    if not loopback and not allowed:
        return None
    names = [listens_on, *allowed, *([host] if (host := urlsplit(advertised or "").hostname) else [])]
    return Hosts.of(names, any_address=not loopback)


def check_browser(request: web.Request, hosts: Hosts | None) -> None:
    """Rejects requests that a web page of another site may have sent; `hosts` None accepts any `Host`.

    Raises `ForbiddenError`, or `UnsupportedContentTypeError` for a body of a type that needs no preflight request.
    """
    authority = _authority(request)
    if hosts is not None and (authority is None or not hosts.has(authority[0])):
        given = printable(request.headers.get(hdrs.HOST, ""), 100)
        raise ForbiddenError(
            f"header host: {given!r} is not a name of this server; use localhost, or add it to"
            " INFERD_HTTP_ALLOWED_HOSTS"
        )
    for origin in request.headers.getall(hdrs.ORIGIN, []):
        if not _is_own(origin, authority):
            raise ForbiddenError(f"header origin: requests from another site ({printable(origin, 100)!r}) are rejected")
    if request.method == hdrs.METH_POST and not _needs_preflight(request):
        _reject(request)


def _reject(request: web.Request) -> NoReturn:
    """A body of the wrong type gets `unsupported_content_type`, whether or not its route reads a body."""
    if request.can_read_body:
        given = printable(request.headers.get(hdrs.CONTENT_TYPE, ""), 80)
        raise UnsupportedContentTypeError(
            f"header content-type: {given!r}; supported: {', '.join(content_types())}. Another type needs the header"
            f" {REQUEST_HEADER}: 1"
        )
    raise ForbiddenError(
        f"the request needs the header {REQUEST_HEADER}: 1 (or content-type: application/json), which a web page of"
        " another site cannot send"
    )


def _needs_preflight(request: web.Request) -> bool:
    """Whether a browser would send this request to another origin only after a preflight request."""
    # Triton's HTTP clients send the second one without a content-type.
    if any(name in request.headers for name in (REQUEST_HEADER, JSON_LENGTH)):
        return True
    types = [given.partition(";")[0].strip().lower() for given in request.headers.getall(hdrs.CONTENT_TYPE, [])]
    return any(_MEDIA_TYPE.fullmatch(each) and each not in SAFELISTED_TYPES for each in types)


def _authority(request: web.Request) -> tuple[str, str | None] | None:
    """Host and port of the `Host` header; None if it is missing, repeated or invalid."""
    given = request.headers.getall(hdrs.HOST, [])
    match = _AUTHORITY.fullmatch(given[0].strip()) if len(given) == 1 else None
    return None if match is None else (_normalized(match["host"]), match["port"])


def _is_own(origin: str, authority: tuple[str, str | None] | None) -> bool:
    try:
        parts = urlsplit(origin)
        default = _DEFAULT_PORTS[parts.scheme]
        named = (_normalized(parts.hostname or ""), parts.port or default)
    except (KeyError, ValueError):  # `null`, or no valid origin
        return False
    return authority is not None and named == (authority[0], int(authority[1] or default))


def _normalized(host: str) -> str:
    """A host in lower case, without brackets and without the trailing dot of a fully qualified name."""
    return host.strip("[]").lower().removesuffix(".")
