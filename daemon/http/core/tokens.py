"""Bearer tokens: a file of lines `tenant:sha256`, where `sha256` is that of the token, in hexadecimal digits.

`*` in place of a tenant makes an operator's token, which reads `/status` and `/metrics` of all tenants and does nothing
else. A tenant may have several tokens, so that one can replace another without a gap. Empty lines and lines that start
with `#` mean nothing. The file holds no token, and still nobody but its owner and group may read it.
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
LOOK_EVERY_S = 1.0
_LINE = re.compile(r"(?P<tenant>[^:\s]+)\s*:\s*(?P<sha256>[0-9A-Fa-f]{64})", re.ASCII)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """Whose token has this SHA-256: a tenant's, or the operator's."""

    tenant: str
    sha256: bytes

    def __repr__(self) -> str:
        return f"Token({self.tenant!r})"


def owner_of(presented: str, tokens: tuple[Token, ...]) -> str | None:
    """Whose token was presented, None where nobody's; takes as long whichever it is."""
    digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
    owner = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, digest):
            owner = token.tenant
    return owner


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a file; `ServerError` naming the line where it is none, or where others may read or change it."""
    tokens = tuple(_token(path, number, line) for number, line in read_private_lines(path))
    if not tokens or len(tokens) > TOKENS_MAX:
        raise ServerError(f"{path} has {len(tokens)} tokens; it must have 1 to {TOKENS_MAX}, one a line: tenant:sha256")
    return tokens


class TokensFile:
    """The tokens of a file as it is now: it is read again where it has changed, and kept where it became unreadable."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises what `read_tokens` does."""
        self._path, self._clock = path, clock
        self._tokens = read_tokens(path)
        self._state = _state(path)
        self._looked = clock()

    def tokens(self) -> tuple[Token, ...]:
        """The tokens; looks at the file at most once a second."""
        now = self._clock()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            if (state := _state(self._path)) != self._state:
                self._state = state
                self._read_again()
        return self._tokens

    def _read_again(self) -> None:
        try:
            self._tokens = read_tokens(self._path)
        except ServerError as error:
            log.warning("http_tokens_unreadable", reason=error.message, kept=len(self._tokens))
        else:
            log.info("http_tokens_read", tokens=len(self._tokens))


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
