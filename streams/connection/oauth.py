"""Tokens for OAUTHBEARER: fetched before they expire, once for all connections of the process.

From 80 % of a token's lifetime on, a new one is fetched in the background while connections still use the old one. A
fetch that fails is logged, and tried again for the next connection; it fails connections only once the token has
expired.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from inferd.schemas.connection import client_context, read_password
from inferd.schemas.oauth import AccessToken, OAuth, TokenProvider
from inferd.streams.named_class import find_class

TIMEOUT_S = 10.0
REFRESH_SHARE = 0.8
SKEW_S = 2.0
"""A token that expires sooner counts as expired: the clocks differ, and the handshake takes time."""
ANSWER_BYTES_MAX = 1_048_576
SOURCES_MAX = 64
SOURCES = ("oauth_token_file", "oauth_token_url", "oauth_provider")
log = structlog.get_logger(__name__)


class TokenError(KafkaConnectionError):
    """There is no token; `options` names the fields of `OAuth` to check."""

    def __init__(self, words: str, options: tuple[str, ...]) -> None:
        super().__init__(words)
        self.words, self.options = words, options


@dataclass(frozen=True, slots=True)
class _Held:
    token: AccessToken
    fetched_at_s: float

    def is_valid(self, now: float) -> bool:
        expires = self.token.expires_at_s
        return expires is not None and now < expires - SKEW_S

    def is_due(self, now: float) -> bool:
        """Whether a new one should be fetched."""
        expires = self.token.expires_at_s
        return expires is None or now >= self.fetched_at_s + REFRESH_SHARE * (expires - self.fetched_at_s)


class Tokens(AbstractTokenProvider):
    """The tokens of one source, for aiokafka's connections on any event loop."""

    def __init__(self, fetch: Callable[[], AccessToken], identity: str, clock: Callable[[], float] = time.time) -> None:
        """`fetch` returns a new token, and is called in a thread; `identity` tells the source from others."""
        self.identity = identity
        self._fetch, self._clock = fetch, clock
        self._held: _Held | None = None
        self._lock = threading.Lock()
        self._fetching: Future[None] | None = None

    async def prepare(self, *, fresh: bool = False) -> None:
        """Makes sure that there is a token that has not expired; raises `TokenError` if there is none.

        `fresh`: waits for a new token if one is due, as before a new authentication of an open connection.
        """
        held, now = self._held, self._clock()
        if held is not None and not held.is_due(now):
            return
        fetching = self._start()
        if held is not None and held.is_valid(now) and not fresh:
            return
        try:
            await asyncio.shield(asyncio.wrap_future(fetching))
        except TokenError:
            if held is None or not held.is_valid(self._clock()):
                raise

    async def token(self) -> str:
        """The token, for aiokafka; `prepare` has fetched it."""
        if self._held is None:
            await self.prepare()
        assert self._held is not None
        return self._held.token.value

    def extensions(self) -> Mapping[str, str]:
        """The SASL extensions of the token."""
        return {} if self._held is None else self._held.token.extensions

    def _start(self) -> Future[None]:
        """The running fetch, or a new one."""
        with self._lock:
            if self._fetching is None or self._fetching.done():
                self._fetching = Future()
                # Not of an executor: the process would wait for a user's provider that hangs.
                threading.Thread(target=self._run, args=(self._fetching,), name="oauth-token", daemon=True).start()
            return self._fetching

    def _run(self, done: Future[None]) -> None:
        started = self._clock()
        try:
            token = self._fetch()
            _check(token)
        except Exception as error:  # noqa: BLE001  (a user's provider may raise anything)
            failure = error if isinstance(error, TokenError) else _of_provider(error)
            log.warning("oauth_token_failed", reason=failure.words)
            done.set_exception(failure)
        else:
            self._held = _Held(token, started)
            done.set_result(None)


@lru_cache(maxsize=SOURCES_MAX)
def tokens_of(oauth: OAuth) -> Tokens:
    """The tokens of a source, shared by all clients of the process."""
    return Tokens(source_of(oauth), oauth.identity)


def source_of(oauth: OAuth) -> Callable[[], AccessToken]:
    """A function that fetches a new token; it raises `TokenError`, or anything if it is the user's."""
    if oauth.token_file is not None:
        file = oauth.token_file
        return lambda: _of_file(file)
    if oauth.token_url is not None:
        return lambda: _of_endpoint(oauth)
    made: list[TokenProvider] = []

    def of_provider() -> AccessToken:
        if oauth.provider is None:
            raise TokenError("OAUTHBEARER needs a source of tokens", SOURCES)
        if not made:
            made.append(load_provider(oauth.provider)())
        return made[0].token()

    return of_provider


def load_provider(path: str) -> type[TokenProvider]:
    """The class that `module.Class` names; the working directory is on the import path. Raises `TokenError`."""
    try:
        found = find_class(path)
    except Exception as error:  # a user's module may raise anything at import
        raise TokenError(f"the token provider {path} cannot be loaded: {_text(error)}", ("oauth_provider",)) from error
    if not (isinstance(found, type) and issubclass(found, TokenProvider)):
        raise TokenError(f"{path} is not a subclass of inferd.TokenProvider", ("oauth_provider",))
    return found


def expiry_of_jwt(token: str) -> float | None:
    """When a JWT (RFC 7519) expires, in Unix seconds; None if it is another token, or does not say. Not verified."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = claims.get("exp")
    except (binascii.Error, ValueError, AttributeError):
        return None
    return float(expires) if isinstance(expires, int | float) and not isinstance(expires, bool) else None


def _of_file(path: str) -> AccessToken:
    """The token in a file, which may be replaced at any time: it is used once."""
    try:
        token = read_password(path).strip()
    except (OSError, UnicodeError) as error:
        raise TokenError(f"the token file {path} cannot be read: {_text(error)}", ("oauth_token_file",)) from None
    if not token:
        raise TokenError(f"the token file {path} is empty", ("oauth_token_file",))
    expires = expiry_of_jwt(token)
    if expires is not None and expires < time.time():
        ago = time.time() - expires
        raise TokenError(f"the token in {path} expired {ago:.0f} s ago: it is not rotated", ("oauth_token_file",))
    return AccessToken(token)


def _of_endpoint(oauth: OAuth) -> AccessToken:
    requested_at = time.time()
    answer = _ask(oauth)
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        raise _endpoint_error(oauth, "answers without an access_token", ("oauth_token_url",))
    lifetime = answer.get("expires_in")
    try:
        expires = expiry_of_jwt(token) if lifetime is None else requested_at + float(lifetime)
    except (TypeError, ValueError):
        expires = expiry_of_jwt(token)
    return AccessToken(token, expires)


def _ask(oauth: OAuth) -> dict[str, Any]:
    """The answer of the endpoint (RFC 6749, sections 4.4 and 5)."""
    url = oauth.token_url or ""
    if not url.startswith(("http://", "https://")):
        raise _endpoint_error(oauth, "has no address over HTTP", ("oauth_token_url",))
    form = {"grant_type": "client_credentials", **({"scope": oauth.scope} if oauth.scope else {})}
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), method="POST")  # noqa: S310  (checked)
    request.add_header("Authorization", _basic(oauth))
    request.add_header("Accept", "application/json")
    try:
        with _opener(oauth).open(request, timeout=TIMEOUT_S) as response:
            body = response.read(ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(oauth, error.code, error.read(ANSWER_BYTES_MAX)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            words = f"fails the TLS handshake ({_text(error.reason)})"
            raise _endpoint_error(oauth, words, ("oauth_ssl_cafile",)) from None
        raise _endpoint_error(oauth, f"cannot be reached ({_text(error.reason)})", ("oauth_token_url",)) from None
    except (OSError, ValueError) as error:
        raise _endpoint_error(oauth, f"cannot be reached ({_text(error)})", ("oauth_token_url",)) from None
    answer = _json_object(body)
    if answer is None:
        raise _endpoint_error(oauth, "does not answer with a JSON object", ("oauth_token_url",))
    return answer


def _refused(oauth: OAuth, status: int, body: bytes) -> TokenError:
    answer = _json_object(body) or {}
    code, description = str(answer.get("error", ""))[:100], str(answer.get("error_description", ""))[:200]
    said = ": ".join(filter(None, (f"status {status}", code, description)))
    if status == 401 or code in {"invalid_client", "unauthorized_client"}:
        options = ("oauth_client_id", "oauth_client_secret")
        return _endpoint_error(oauth, f"refuses our client id or secret ({said})", options)
    option = "oauth_scope" if code == "invalid_scope" else "oauth_token_url"
    return _endpoint_error(oauth, f"refuses the request ({said})", (option,))


def _basic(oauth: OAuth) -> str:
    """RFC 6749, section 2.3.1: both are form-encoded first."""
    try:
        file = oauth.client_secret_file
        secret = (oauth.client_secret or "") if file is None else read_password(file)
    except (OSError, UnicodeError) as error:
        words = f"the client secret file {oauth.client_secret_file} cannot be read: {_text(error)}"
        raise TokenError(words, ("oauth_client_secret_file",)) from None
    pair = ":".join(urllib.parse.quote_plus(each) for each in (oauth.client_id or "", secret))
    return "Basic " + base64.b64encode(pair.encode()).decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The secret goes to no other address."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(oauth: OAuth) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if (oauth.token_url or "").startswith("https:"):
        try:
            handlers.append(urllib.request.HTTPSHandler(context=client_context(oauth.ssl_cafile, None, None)))
        except OSError as error:
            words = f"{oauth.ssl_cafile} cannot be used ({_text(error)}): expected a PEM file"
            raise TokenError(words, ("oauth_ssl_cafile",)) from None
    return urllib.request.build_opener(*handlers)


def _endpoint_error(oauth: OAuth, words: str, options: tuple[str, ...]) -> TokenError:
    return TokenError(f"the token endpoint {oauth.token_url} {words}", options)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _check(token: object) -> None:
    if not isinstance(token, AccessToken) or not token.value:
        words = "the token provider returned no inferd.AccessToken with a value"
        raise TokenError(words, ("oauth_provider",))
    if not (token.value.isascii() and token.value.isprintable()) or " " in token.value:
        # SASL separates fields by control characters. The value is not shown.
        raise TokenError("the token has characters that no token may have", ("oauth_token_file", "oauth_provider"))


def _of_provider(error: Exception) -> TokenError:
    failure = TokenError(f"the token provider failed: {_text(error)}", ("oauth_provider",))
    failure.__cause__ = error
    return failure


def _text(error: BaseException | str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:300] or type(error).__name__
