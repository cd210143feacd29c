"""Where no tokens are asked for, what a web page of another site may not do through a browser on this machine.

A page sends requests to any address that its reader's browser reaches, loopback included. Three checks keep it out:
`Host` must be a name of this server, so that a name which an attacker points at loopback (DNS rebinding) is none;
`Origin` must be the server's own; and a POST must have a header, or a media type, that browsers send to another origin
only after a preflight request, which no route here grants (Fetch standard, "CORS-safelisted request-header").
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
from inferd.schemas.errors import UnsupportedContentTypeError
from inferd.schemas.headers import CONTENT_TYPES

REQUEST_HEADER = "inferd-request"
SAFELISTED_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""Media types that a page may send to any origin."""
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5})?)?", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names under which a server is asked: those of loopback always, and `names` besides."""

    names: frozenset[str] = frozenset()
    any_address: bool = False
    """Also any IP address: a page can make its own name lead anywhere, but not appear under a number."""

    @classmethod
    def of(cls, names: Iterable[str], *, any_address: bool = False) -> Hosts:
        """Of names and addresses as settings have them."""
        return cls(frozenset(_plain(name) for name in names), any_address)

    def has(self, host: str) -> bool:
        """Whether `host`, without its port, is one of them."""
        name = _plain(host)
        if name == "localhost" or name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or (getattr(address, "ipv4_mapped", None) or address).is_loopback


LOOPBACK = Hosts()


def hosts_under(listens_on: str, allowed: Sequence[str], advertised: str | None = None) -> Hosts | None:
    """Names of a server that listens on a host, with those that are allowed besides, and that of an advertised URL.

    None, any name, beyond loopback where none is allowed explicitly.
    """
    loopback = is_loopback(listens_on)
    if not loopback and not allowed:
        return None
    names = [listens_on, *allowed, *([host] if (host := urlsplit(advertised or "").hostname) else [])]
    return Hosts.of(names, any_address=not loopback)


def check_browser(request: web.Request, hosts: Hosts | None) -> None:
    """Refuses what a page of another site may have sent; `hosts` None: the server may be asked under any name.

    `ForbiddenError`, or `UnsupportedContentTypeError` where there is a body that a page may send to any origin.
    """
    authority = _authority(request)
    if hosts is not None and (authority is None or not hosts.has(authority[0])):
        given = printable(request.headers.get(hdrs.HOST, ""), 100)
        raise ForbiddenError(
            f"header host: {given!r} is no name of this server; add it to INFERD_HTTP_ALLOWED_HOSTS, or use localhost"
        )
    for origin in request.headers.getall(hdrs.ORIGIN, []):
        if not _is_own(origin, authority):
            raise ForbiddenError(f"header origin: {printable(origin, 100)!r} is another site, which may not ask here")
    if request.method == hdrs.METH_POST and not _needs_preflight(request):
        _refuse(request)


def _refuse(request: web.Request) -> NoReturn:
    """A body of the wrong type is told so, whether or not its route reads one."""
    if request.can_read_body:
        given = printable(request.headers.get(hdrs.CONTENT_TYPE, ""), 80)
        raise UnsupportedContentTypeError(
            f"header content-type: {given!r}; there are {', '.join(CONTENT_TYPES)}. Another type needs the header"
            f" {REQUEST_HEADER}: 1"
        )
    raise ForbiddenError(
        f"the request needs the header {REQUEST_HEADER}: 1 (or content-type: application/json), which a web page of"
        " another site cannot send"
    )


def _needs_preflight(request: web.Request) -> bool:
    """Whether a browser would have asked first, had a page of another origin made the request."""
    if REQUEST_HEADER in request.headers:
        return True
    types = [given.partition(";")[0].strip().lower() for given in request.headers.getall(hdrs.CONTENT_TYPE, [])]
    return any(_MEDIA_TYPE.fullmatch(each) and each not in SAFELISTED_TYPES for each in types)


def _authority(request: web.Request) -> tuple[str, str | None] | None:
    """Host and port of the header `Host`, if it comes once and is one."""
    given = request.headers.getall(hdrs.HOST, [])
    match = _AUTHORITY.fullmatch(given[0].strip()) if len(given) == 1 else None
    return None if match is None else (_plain(match["host"]), match["port"])


def _is_own(origin: str, authority: tuple[str, str | None] | None) -> bool:
    try:
        parts = urlsplit(origin)
        default = _DEFAULT_PORTS[parts.scheme]
        named = (_plain(parts.hostname or ""), parts.port or default)
    except (KeyError, ValueError):  # `null`, and what is no origin
        return False
    return authority is not None and named == (authority[0], int(authority[1] or default))


def _plain(host: str) -> str:
    """A host as it is compared: lower case, without brackets, and without the dot of a fully qualified name."""
    return host.strip("[]").lower().removesuffix(".")
