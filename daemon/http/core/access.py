"""Who asks, and for which tenant: its bearer token says so, or, without tokens, a header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

from inferd.daemon.http.core.browsers import LOOPBACK, Hosts, check_browser
from inferd.daemon.http.core.errors import ForbiddenError, Respond, UnauthorizedError
from inferd.daemon.http.core.peers import PEER_PATH, Peers
from inferd.daemon.http.core.tokens import OPERATOR, TokensFile, owner_of
from inferd.schemas.errors import InvalidHeaderError, InvalidIdError
from inferd.schemas.topics import DEFAULT_TENANT, check_topic_part

TENANT_HEADER = "inferd-tenant"
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health", PEER_PATH})
"""What needs no token: the probes, the page, which shows nothing before it has asked for one, and what workers prove
themselves with."""
TOKEN_CHARS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the owner of a token, or, where there are none, anybody."""

    tenant: str | None
    """The tenant that a token ties the caller to; None: any."""
    acts: bool = True
    """False: an operator, who only looks."""


ANYBODY = Caller(None)
WATCHER = Caller(None, acts=False)
CALLER = web.RequestKey("caller", Caller)


class Access:
    """The tenants that are served, and the tokens that guard them."""

    def __init__(
        self,
        tenants: Sequence[str] = (DEFAULT_TENANT,),
        tokens: TokensFile | None = None,
        hosts: Hosts | None = LOOPBACK,
        peers: Peers | None = None,
    ) -> None:
        """`hosts`: names under which the server may be asked where there are no tokens; None: any. `peers`: how other
        workers prove whom they ask for."""
        self.tenants = tuple(tenants)
        self._tokens, self._hosts = tokens, hosts
        self.peers = peers or Peers()

    @property
    def guarded(self) -> bool:
        """Whether tokens are asked for."""
        return self._tokens is not None

    def caller(self, request: web.Request) -> Caller:
        """Who asks; `UnauthorizedError` where a token is needed and none that is known came.

        `ForbiddenError` where no token is needed and a web page of another site may have sent the request.
        """
        if (vouched := self.peers.tenant_of(request)) is not None:
            return Caller(vouched)
        if self._tokens is None:
            check_browser(request, self._hosts)
            return ANYBODY
        owner = owner_of(_bearer(request), self._tokens.tokens())
        if owner is None:
            raise UnauthorizedError("the bearer token is not known here")
        return WATCHER if owner == OPERATOR else Caller(owner)


ACCESS = web.AppKey("access", Access)


@web.middleware
async def guarded(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Lets nobody pass who needs a token and has none."""
    if request.path not in OPEN_PATHS:
        request[CALLER] = request.app[ACCESS].caller(request)
    return await handler(request)


def tenant_of(request: web.Request) -> str:
    """The tenant that a request acts for.

    `ForbiddenError` where its token is another's, an operator's, or of a tenant that is not served here;
    `InvalidHeaderError` where it names no tenant of this worker, or none at all though there are several.
    """
    access, caller = request.app[ACCESS], request[CALLER]
    named = request.headers.getall(TENANT_HEADER, [])
    if len(named) > 1:
        raise InvalidHeaderError(f"header {TENANT_HEADER}: it comes {len(named)} times")
    if not caller.acts:
        raise ForbiddenError("an operator's token reads /status and /metrics, and acts for no tenant")
    if caller.tenant is not None:
        return _own_tenant(caller.tenant, named, access.tenants)
    if named:
        return _served(named[0], access.tenants)
    if len(access.tenants) > 1:
        raise InvalidHeaderError(f"several tenants are served here: name one in the header {TENANT_HEADER}")
    return access.tenants[0]


def charged_tenant(request: web.Request) -> str:
    """The tenant whose share of a bound the request takes: the first one where it acts for none that is served."""
    tenants = request.app[ACCESS].tenants
    named = request[CALLER].tenant or request.headers.get(TENANT_HEADER)
    return named if named in tenants else tenants[0]


def own_tenant(request: web.Request) -> str | None:
    """The tenant to whom alone a caller who only looks is bound; None where all may be seen."""
    return request[CALLER].tenant


def _own_tenant(tenant: str, named: list[str], served: tuple[str, ...]) -> str:
    if named and named[0] != tenant:
        raise ForbiddenError(f"header {TENANT_HEADER}: the bearer token is another tenant's")
    if tenant not in served:
        raise ForbiddenError(f"tenant {tenant!r} is not served by this worker")
    return tenant


def _served(name: str, served: tuple[str, ...]) -> str:
    try:
        check_topic_part("tenant", name)
    except InvalidIdError as error:
        raise InvalidHeaderError(f"header {TENANT_HEADER}: {error.message}") from None
    if name not in served:
        raise InvalidHeaderError(f"header {TENANT_HEADER}: tenant {name!r} is not served by this worker")
    return name


def _bearer(request: web.Request) -> str:
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(given) != 1:
        raise UnauthorizedError("a bearer token is needed, once: Authorization: Bearer <token>")
    scheme, _, token = given[0].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_CHARS_MAX:
        raise UnauthorizedError("a bearer token is needed: Authorization: Bearer <token>")
    return token
