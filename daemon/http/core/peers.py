"""Authentication between the workers of a group, by a shared secret that is never sent.

Before a worker forwards a request, it challenges the other one to prove that it has the secret. Then it sends a pass
instead of the caller's bearer token: an HMAC (RFC 2104) over the tenant, method, path, receiver and expiry time.
So a process that merely joins the Kafka group and announces an address receives neither tokens nor rows, and a pass is
valid only for one request, at one worker, for a short time.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web
from yarl import URL

from inferd.daemon.http.core.errors import UnauthorizedError, json_response
from inferd.daemon.http.core.private_files import read_private_lines
from inferd.schemas.errors import InvalidValueError, ServerError

FORWARDED = "inferd-forwarded"
"""Header of a forwarded request, which is not forwarded again: the pass, or `1` if there is no secret."""
UNSIGNED = "1"
PEER_PATH = "/peer"
LIFETIME_S = 60.0
SKEW_S = 60.0
"""Allowed clock difference between two workers."""
SECRET_CHARS_MIN, CHALLENGE_CHARS_MAX = 32, 200


@dataclass(frozen=True, slots=True)
class PeerSecret:
    """The secrets of a group. The first one signs; all are accepted, so that a secret can be rotated."""

    keys: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"PeerSecret({len(self.keys)} keys)"

    def sign(self, *what: object) -> str:
        """The signature of these values, in hexadecimal digits."""
        return _signature(self.keys[0], what)

    def verify(self, signature: str, *what: object) -> bool:
        """Whether one of the secrets made this signature."""
        given = signature.encode("utf-8", "surrogateescape")
        return any(hmac.compare_digest(_signature(key, what).encode(), given) for key in self.keys)


def read_peer_secret(path: Path) -> PeerSecret:
    """Reads secrets, one per line; raises `ServerError` if there is none, one is too short, or others can read them."""
    lines = read_private_lines(path)
    if short := [number for number, line in lines if len(line) < SECRET_CHARS_MIN]:
        raise ServerError(f"{path}, line {short[0]}: a secret must have at least {SECRET_CHARS_MIN} characters")
    if not lines:
        raise ServerError(f"{path} has no secret: generate one with `openssl rand -hex 32`")
    return PeerSecret(tuple(line.encode() for _, line in lines))


class Peers:
    """Makes and checks passes and proofs for one worker; without a secret there are none."""

    def __init__(
        self,
        secret: PeerSecret | None = None,
        own_url: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`own_url`: the URL at which other workers reach this one; `clock`: Unix seconds."""
        self.secret = secret
        self._own_url, self._clock = own_url, clock

    @property
    def own_url(self) -> str:
        """The URL at which other workers reach this one."""
        return self._own_url()

    def pass_for(self, url: str, tenant: str, method: str, path: str) -> str:
        """The pass for one request of a tenant, or of `ANY_TENANT`, to the worker at `url`; `path` as sent."""
        if self.secret is None:
            return UNSIGNED
        expires = int(self._clock() + LIFETIME_S)
        return f"v1.{expires}.{tenant}.{self.secret.sign('pass', expires, tenant, method, path, _origin(url))}"

    def tenant_of(self, request: web.Request) -> str | None:
        """The tenant named by the request's pass; None if it has no pass.

        Raises `UnauthorizedError` for a pass that is forged, expired, or made for another request.
        """
        given = request.headers.get(FORWARDED, UNSIGNED)
        if self.secret is None or given == UNSIGNED:
            return None
        version, _, rest = given.partition(".")
        expires, _, rest = rest.partition(".")
        tenant, _, signature = rest.partition(".")
        what = (tenant, request.method, request.rel_url.raw_path_qs, _origin(self._own_url()))
        if version == "v1" and expires.isdecimal() and len(expires) <= 12:
            now = self._clock()
            in_time = now - SKEW_S <= int(expires) <= now + LIFETIME_S + SKEW_S
            if self.secret.verify(signature, "pass", int(expires), *what) and in_time:
                return tenant
        raise UnauthorizedError(
            f"header {FORWARDED}: the pass is not valid for this request. Workers of a group need the same"
            " INFERD_HTTP_FORWARDING_SECRET_FILE, synchronized clocks, and their own INFERD_HTTP_ADVERTISED_URL"
        )

    def prove(self, challenge: str) -> str:
        """The proof that this worker has the secret and is reached at its advertised URL."""
        if self.secret is None:
            raise InvalidValueError("this worker cannot prove its identity: set INFERD_HTTP_FORWARDING_SECRET_FILE")
        return self.secret.sign("proof", challenge, _origin(self._own_url()))

    def proves(self, url: str, challenge: str, proof: str) -> bool:
        """Whether `proof` was made by the worker at `url`, for this challenge."""
        return self.secret is not None and self.secret.verify(proof, "proof", challenge, _origin(url))


PEERS = web.AppKey("peers", Peers)


class PeerProof(msgspec.Struct):
    """The proof that a worker has the group's secret."""

    proof: str


def add_peer(app: web.Application) -> None:
    """Adds the route that answers another worker's challenge."""
    app.router.add_get(PEER_PATH, prove)


async def prove(request: web.Request) -> web.Response:
    """Answers the challenge in the query."""
    challenge = request.query.get("challenge", "")
    if not 0 < len(challenge) <= CHALLENGE_CHARS_MAX:
        raise InvalidValueError(f"query parameter challenge: expected 1 to {CHALLENGE_CHARS_MAX} characters")
    return json_response(PeerProof(request.app[PEERS].prove(challenge)))


def _signature(key: bytes, what: tuple[object, ...]) -> str:
    return hmac.new(key, msgspec.json.encode(("inferd v1", *what)), hashlib.sha256).hexdigest()


def _origin(url: str) -> str:
    """Scheme, host and port of a URL, normalized."""
    try:
        return str(URL(url).origin())
    except ValueError:
        return url
