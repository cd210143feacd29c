"""Workers of a group prove to one another who they are, by a secret that they share and never send.

Before a worker passes a request on, it challenges the other one to prove that it has the secret; then it sends a pass
in place of the caller's bearer token: an HMAC (RFC 2104) over the tenant, method, path, receiver and a time of expiry.
So whoever merely joins the Kafka group and names an address is sent neither tokens nor rows, and a pass is of no use
for another request, at another worker, or later.
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
"""Goes with a request that was passed on, whose receiver answers by itself: a pass, or `1` where there is no secret."""
UNSIGNED = "1"
PEER_PATH = "/peer"
LIFETIME_S = 60.0
SKEW_S = 60.0
"""How much the clocks of two workers may differ."""
SECRET_CHARS_MIN, CHALLENGE_CHARS_MAX = 32, 200


@dataclass(frozen=True, slots=True)
class PeerSecret:
    """The secrets of a group: the first signs, each is accepted, so that one can replace another without a gap."""

    keys: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"PeerSecret({len(self.keys)} keys)"

    def sign(self, *what: object) -> str:
        """A signature of these values, in hexadecimal digits."""
        return _signature(self.keys[0], what)

    def signed(self, signature: str, *what: object) -> bool:
        """Whether one of the secrets made the signature."""
        given = signature.encode("utf-8", "surrogateescape")
        return any(hmac.compare_digest(_signature(key, what).encode(), given) for key in self.keys)


def read_peer_secret(path: Path) -> PeerSecret:
    """The secrets of a file, one a line; `ServerError` where there is none, or one is short, or others may read it."""
    lines = read_private_lines(path)
    if short := [number for number, line in lines if len(line) < SECRET_CHARS_MIN]:
        raise ServerError(f"{path}, line {short[0]}: a secret has {SECRET_CHARS_MIN} characters or more")
    if not lines:
        raise ServerError(f"{path} has no secret: make one with `openssl rand -hex 32`")
    return PeerSecret(tuple(line.encode() for _, line in lines))


class Peers:
    """Passes and proofs of one worker; without a secret it gives and accepts none."""

    def __init__(
        self,
        secret: PeerSecret | None = None,
        own_url: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`own_url`: where the other workers reach this one; `clock`: Unix seconds."""
        self.secret = secret
        self._own_url, self._clock = own_url, clock

    def pass_for(self, url: str, tenant: str, method: str, path: str) -> str:
        """What lets one request of a tenant pass at the worker at `url`; `path` has the query, both as sent."""
        if self.secret is None:
            return UNSIGNED
        expires = int(self._clock() + LIFETIME_S)
        return f"v1.{expires}.{tenant}.{self.secret.sign('pass', expires, tenant, method, path, _origin(url))}"

    def tenant_of(self, request: web.Request) -> str | None:
        """The tenant that another worker vouches for; None where the request brings no pass.

        `UnauthorizedError` for one that is forged, expired, or of another request.
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
            if self.secret.signed(signature, "pass", int(expires), *what) and in_time:
                return tenant
        raise UnauthorizedError(
            f"header {FORWARDED}: it is no pass for this request. Workers of a group need the same"
            " INFERD_HTTP_FORWARDING_SECRET_FILE, clocks that agree, and the INFERD_HTTP_ADVERTISED_URL they answer at"
        )

    def prove(self, challenge: str) -> str:
        """The proof that this worker has the secret, and answers where it says."""
        if self.secret is None:
            raise InvalidValueError("this worker has no INFERD_HTTP_FORWARDING_SECRET_FILE to prove itself with")
        return self.secret.sign("proof", challenge, _origin(self._own_url()))

    def proves(self, url: str, challenge: str, proof: str) -> bool:
        """Whether `proof` is that of the worker at `url`."""
        return self.secret is not None and self.secret.signed(proof, "proof", challenge, _origin(url))


PEERS = web.AppKey("peers", Peers)


class PeerProof(msgspec.Struct):
    """Proves that a worker has the group's secret."""

    proof: str


def add_peer(app: web.Application) -> None:
    """Adds the route that answers another worker's challenge."""
    app.router.add_get(PEER_PATH, prove)


async def prove(request: web.Request) -> web.Response:
    """The proof for the challenge of the query."""
    challenge = request.query.get("challenge", "")
    if not 0 < len(challenge) <= CHALLENGE_CHARS_MAX:
        raise InvalidValueError(f"query parameter challenge: it must have 1 to {CHALLENGE_CHARS_MAX} characters")
    return json_response(PeerProof(request.app[PEERS].prove(challenge)))


def _signature(key: bytes, what: tuple[object, ...]) -> str:
    return hmac.new(key, msgspec.json.encode(("inferd v1", *what)), hashlib.sha256).hexdigest()


def _origin(url: str) -> str:
    """Scheme, host and port: the same however a URL was written."""
    try:
        return str(URL(url).origin())
    except ValueError:
        return url
