"""Authentication, tenant and roles of a request: from its bearer token or, without tokens, from a header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

from inferd.actor import Actor, acting_as
from inferd.daemon.http.core.browsers import LOOPBACK, Hosts, check_browser
from inferd.daemon.http.core.errors import ForbiddenError, Respond, UnauthorizedError
from inferd.daemon.http.core.page_files import files_of_page
from inferd.daemon.http.core.peers import PEER_PATH, Peers
from inferd.daemon.http.core.roles import ALL_ROLES, ROLES, Role, accepted_roles
from inferd.daemon.http.core.tokens import ANY_TENANT, TokensFile, token_of
from inferd.schemas.errors import InvalidHeaderError, InvalidIdError
from inferd.schemas.topics import DEFAULT_TENANT, check_topic_part

TENANT_HEADER = "inferd-tenant"
PROBE_PATHS = frozenset({"/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready"})
TOKEN_CHARS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    tenant: str | None
    """The tenant of the caller's token; None: any tenant."""
    name: str | None = None
    """The name of the token, also for the audit; None without one."""
    roles: frozenset[Role] = ALL_ROLES


def is_public(path: str) -> bool:
    """Whether a path needs no token: the probes, the page (it asks for the token itself), and the challenge between
    workers."""
    return path in PROBE_PATHS or path == PEER_PATH or path in files_of_page()


ANONYMOUS = Caller(None)
CALLER = web.RequestKey("caller", Caller)


class Access:
    """The served tenants, and how their callers authenticate."""

    def __init__(
        self,
        tenants: Sequence[str] = (DEFAULT_TENANT,),
        tokens: TokensFile | None = None,
        hosts: Hosts | None = LOOPBACK,
        peers: Peers | None = None,
    ) -> None:
        """`hosts`: accepted `Host` headers if there are no tokens; None accepts any. `peers` checks the passes of other
        workers."""
        self.tenants = tuple(tenants)
        self._tokens, self._hosts = tokens, hosts
        self.peers = peers or Peers()

    @property
    def requires_token(self) -> bool:
        """Whether requests need a bearer token."""
        return self._tokens is not None

    def caller(self, request: web.Request) -> Caller:
        """The caller of a request.

        Raises `UnauthorizedError` if a token is required and is missing or unknown, and `ForbiddenError` if no token
        is required and the request may come from a web page of another site.
        """
        if (tenant := self.peers.tenant_of(request)) is not None:
            return Caller(None if tenant == ANY_TENANT else tenant)
        if self._tokens is None:
            check_browser(request, self._hosts)
            return ANONYMOUS
        token = token_of(_bearer(request), self._tokens.tokens())
        if token is None:
            raise UnauthorizedError("the bearer token is unknown")
        return Caller(None if token.tenant == ANY_TENANT else token.tenant, token.name, token.roles)


ACCESS = web.AppKey("access", Access)


@web.middleware
async def authenticated(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Refuses requests without a valid token that has a role which the route accepts, unless the path is public."""
    if is_public(request.path):
        return await handler(request)
    request[CALLER] = caller = request.app[ACCESS].caller(request)
    _check_roles(request, caller)
    with acting_as(Actor(caller.name or "http", f"http {request.remote or 'unknown'}")):
        return await handler(request)


def caller_of(request: web.Request) -> Caller:
    """The caller of a request to a path that is not public."""
    return request[CALLER]


def _check_roles(request: web.Request, caller: Caller) -> None:
    """Raises `ForbiddenError`, naming the missing role, unless the caller has one that the route accepts."""
    if caller.roles == ALL_ROLES:
        return
    accepted = accepted_roles(request)
    if accepted is None:
        raise ForbiddenError(f"this route needs a token with all roles; {_has(caller)}")
    if accepted and caller.roles.isdisjoint(accepted):
        raise ForbiddenError(f"this route needs the role {' or '.join(accepted)}; {_has(caller)}")


def _has(caller: Caller) -> str:
    return f"the token {caller.name!r} has {', '.join(role for role in ROLES if role in caller.roles)}"


def tenant_of(request: web.Request) -> str:
    """The tenant of a request.

    Raises `ForbiddenError` if the token belongs to another tenant, or to one that is not served here, and
    `InvalidHeaderError` if the header names a tenant that is not served, or is missing while there are several
    tenants.
    """
    access, caller = request.app[ACCESS], request[CALLER]
    named = request.headers.getall(TENANT_HEADER, [])
    if len(named) > 1:
        raise InvalidHeaderError(f"header {TENANT_HEADER}: it is given {len(named)} times")
    if caller.tenant is not None:
        return _own_tenant(caller.tenant, named, access.tenants)
    if named:
        return _served(named[0], access.tenants)
    if len(access.tenants) > 1:
        raise InvalidHeaderError(f"this worker serves several tenants: name one in the header {TENANT_HEADER}")
    return access.tenants[0]


def check_tenant(request: web.Request, tenant: str) -> None:
    """Raises `ForbiddenError` unless the caller may use `tenant`, and what `tenant_of` raises.

    A caller who may use any tenant needs no header here; public paths are open to everybody.
    """
    if is_public(request.path) or (request[CALLER].tenant is None and TENANT_HEADER not in request.headers):
        return
    if tenant_of(request) != tenant:
        raise ForbiddenError(f"this route belongs to tenant {tenant!r}; the request is of another tenant")


def charged_tenant(request: web.Request) -> str:
    """The tenant whose quota the request counts against: the first one if it names no served tenant."""
    tenants = request.app[ACCESS].tenants
    named = request[CALLER].tenant or request.headers.get(TENANT_HEADER)
    return named if named in tenants else tenants[0]


def token_tenant(request: web.Request) -> str | None:
    """The tenant that the caller's token is restricted to; None: the caller may see all tenants."""
    return request[CALLER].tenant


def _own_tenant(tenant: str, named: list[str], served: tuple[str, ...]) -> str:
    if named and named[0] != tenant:
        raise ForbiddenError(f"header {TENANT_HEADER}: the bearer token belongs to another tenant")
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
        raise UnauthorizedError("exactly one bearer token is required: Authorization: Bearer <token>")
    scheme, _, token = given[0].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_CHARS_MAX:
        raise UnauthorizedError("a bearer token is required: Authorization: Bearer <token>")
    return token
