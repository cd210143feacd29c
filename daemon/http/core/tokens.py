"""Bearer tokens: a file of lines `tenant:sha256:name:roles`, with the SHA-256 of the token in hexadecimal digits.

`*` instead of a tenant means all tenants. `name` tells whose token it is. `roles` are separated by commas. Name and
roles may be omitted, as in files of earlier versions: then a tenant's token has all roles, and that of `*` only
`monitor`. Several tokens may have the same tenant and name, so that tokens can be rotated. Empty lines and lines that
start with `#` are ignored. Although the file holds only digests, only its owner and group may read it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from inferd.daemon.http.core.private_files import read_private_lines
from inferd.daemon.http.core.roles import ALL_ROLES, ROLES, Role, with_implied
from inferd.schemas.errors import InvalidIdError, ServerError
from inferd.schemas.topics import check_topic_part

ANY_TENANT = "*"
FORM = "tenant:sha256:name:roles"
TOKENS_MAX = 1_000
CHECK_INTERVAL_S = 1.0
_LINE = re.compile(
    r"(?P<tenant>[^:\s]+)\s*:\s*(?P<sha256>[0-9A-Fa-f]{64})"
    r"(\s*:\s*(?P<name>[A-Za-z0-9._@-]{1,64})(\s*:\s*(?P<roles>[a-z, ]*))?)?",
    re.ASCII,
)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """The SHA-256 of a token, its tenant or `ANY_TENANT`, its name, and what it may do."""

    tenant: str
    sha256: bytes
    name: str
    roles: frozenset[Role]

    def __repr__(self) -> str:
        return f"Token({self.tenant!r}, {self.name!r}, {sorted(self.roles)})"


def token_of(presented: str, tokens: tuple[Token, ...]) -> Token | None:
    """The entry of a token, None if it is unknown. Takes constant time."""
    digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
    found = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, digest):
            found = token
    return found


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Reads tokens; raises `ServerError`, naming the line, for an invalid file or permissions that are too wide."""
    tokens = tuple(_token(path, number, line) for number, line in read_private_lines(path))
    if not tokens or len(tokens) > TOKENS_MAX:
        raise ServerError(f"{path} has {len(tokens)} tokens; expected 1 to {TOKENS_MAX}, one per line: {FORM}")
    return tokens


class TokensFile:
    """The tokens of a file, reloaded when it changes; if it becomes unreadable, the last tokens stay valid."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises the errors of `read_tokens`."""
        self._path, self._clock = path, clock
        self._tokens = read_tokens(path)
        self._state = _state(path)
        self._checked_at = clock()

    def tokens(self) -> tuple[Token, ...]:
        """The tokens; checks the file for changes at most once a second."""
        now = self._clock()
        if now - self._checked_at >= CHECK_INTERVAL_S:
            self._checked_at = now
            if (state := _state(self._path)) != self._state:
                self._state = state
                self._reload()
        return self._tokens

    def _reload(self) -> None:
        try:
            self._tokens = read_tokens(self._path)
        except ServerError as error:
            log.warning("http_tokens_unreadable", reason=error.message, kept=len(self._tokens))
        else:
            log.info("http_tokens_reloaded", tokens=len(self._tokens))


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def _token(path: Path, number: int, line: str) -> Token:
    where = f"{path}, line {number}"
    match = _LINE.fullmatch(line)
    if match is None:
        # The line is not shown: it may well hold a token.
        raise ServerError(
            f"{where}: expected {FORM}, the SHA-256 in 64 hexadecimal digits; name and roles are optional"
        )
    tenant, digest = match["tenant"], bytes.fromhex(match["sha256"])
    try:
        if tenant != ANY_TENANT:
            check_topic_part("tenant", tenant)
    except InvalidIdError as error:
        raise ServerError(f"{where}: {error.message}") from None
    return Token(tenant, digest, match["name"] or f"token-{digest.hex()[:8]}", _roles(where, tenant, match["roles"]))


def _roles(where: str, tenant: str, given: str | None) -> frozenset[Role]:
    if given is None:
        return frozenset({"monitor"}) if tenant == ANY_TENANT else ALL_ROLES
    names = {name.strip() for name in given.split(",")}
    if not names <= ALL_ROLES:
        raise ServerError(f"{where}: expected roles separated by commas, of {', '.join(ROLES)}")
    return with_implied(role for role in ROLES if role in names)
