"""Bearer tokens: a file of lines `tenant:sha256`, with the SHA-256 of the token in hexadecimal digits.

`*` instead of a tenant makes an operator's token, which gives access to `/status` and `/metrics` of all tenants and to
nothing else. A tenant may have several tokens, so that tokens can be rotated. Empty lines and lines that start with `#`
are ignored. Although the file holds only digests, only its owner and group may read it.
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
from inferd.schemas.errors import InvalidIdError, ServerError
from inferd.schemas.topics import check_topic_part

OPERATOR = "*"
TOKENS_MAX = 1_000
CHECK_INTERVAL_S = 1.0
_LINE = re.compile(r"(?P<tenant>[^:\s]+)\s*:\s*(?P<sha256>[0-9A-Fa-f]{64})", re.ASCII)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """The SHA-256 of a token, and its owner: a tenant or `OPERATOR`."""

    tenant: str
    sha256: bytes

    def __repr__(self) -> str:
        return f"Token({self.tenant!r})"


def owner_of(presented: str, tokens: tuple[Token, ...]) -> str | None:
    """The owner of a token, None if it is unknown. Takes constant time."""
    digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
    owner = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, digest):
            owner = token.tenant
    return owner


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Reads tokens; raises `ServerError`, naming the line, for an invalid file or permissions that are too wide."""
    tokens = tuple(_token(path, number, line) for number, line in read_private_lines(path))
    if not tokens or len(tokens) > TOKENS_MAX:
        raise ServerError(f"{path} has {len(tokens)} tokens; expected 1 to {TOKENS_MAX}, one per line: tenant:sha256")
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
    match = _LINE.fullmatch(line)
    if match is None:
        # The line is not shown: it may well hold a token.
        raise ServerError(f"{path}, line {number}: expected tenant:sha256, the SHA-256 in 64 hexadecimal digits")
    try:
        tenant = match["tenant"] if match["tenant"] == OPERATOR else check_topic_part("tenant", match["tenant"])
    except InvalidIdError as error:
        raise ServerError(f"{path}, line {number}: {error.message}") from None
    return Token(tenant, bytes.fromhex(match["sha256"]))
