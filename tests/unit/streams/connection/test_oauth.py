"""Tokens are fetched once for all connections, before they expire; every failure names what to check."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inferd.schemas.oauth import AccessToken, OAuth, TokenProvider
from inferd.streams.connection.oauth import TokenError, Tokens, expiry_of_jwt, load_provider, source_of, tokens_of
from tests.fixtures.certificates import Authority
from tests.fixtures.identity import CLIENT_ID, CLIENT_SECRET, IdentityProvider, identity_provider


class Source:
    """Issues tokens `t1`, `t2`, … that are valid for `lifetime_s`, or fails."""

    def __init__(self, clock: Clock, lifetime_s: float | None = 100.0) -> None:
        self.clock, self.lifetime_s = clock, lifetime_s
        self.issued = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> AccessToken:
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.issued += 1
        return AccessToken(f"t{self.issued}", None if self.lifetime_s is None else self.clock.now + self.lifetime_s)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def given(tokens: Tokens, *, fresh: bool = False) -> str:
    """The token of a connection that is made now."""
    await tokens.prepare(fresh=fresh)
    return await tokens.token()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (a thread sets it)
            await asyncio.sleep(0.001)


async def test_connections_share_a_token_until_it_is_due(clock: Clock) -> None:
    source = Source(clock)
    tokens = Tokens(source, "x", clock)
    source.gate.clear()
    waiting = [asyncio.create_task(given(tokens)) for _ in range(5)]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*waiting) == ["t1"] * 5
    clock.now += 79
    assert await given(tokens) == await given(tokens, fresh=True) == "t1"
    assert source.issued == 1


async def test_a_token_that_is_due_is_used_while_a_new_one_is_fetched(clock: Clock) -> None:
    source = Source(clock)
    tokens = Tokens(source, "x", clock)
    await given(tokens)
    clock.now += 81
    source.gate.clear()
    assert await given(tokens) == "t1"
    source.gate.set()
    await until(lambda: source.issued == 2)
    await until(lambda: tokens._held and tokens._held.token.value == "t2")
    assert await given(tokens) == "t2"


async def test_a_new_authentication_waits_for_the_new_token(clock: Clock) -> None:
    source = Source(clock)
    tokens = Tokens(source, "x", clock)
    await given(tokens)
    clock.now += 81
    assert await given(tokens, fresh=True) == "t2"


async def test_a_failed_fetch_fails_connections_only_once_the_token_has_expired(clock: Clock) -> None:
    source = Source(clock)
    tokens = Tokens(source, "x", clock)
    await given(tokens)
    source.error = RuntimeError("the provider is down")
    clock.now += 90
    assert await given(tokens, fresh=True) == "t1"
    clock.now += 9
    with pytest.raises(TokenError, match="the token provider failed: the provider is down"):
        await given(tokens)
    source.error = None
    assert await given(tokens) == "t2"


async def test_a_token_of_unknown_lifetime_is_used_once(clock: Clock) -> None:
    source = Source(clock, None)
    tokens = Tokens(source, "x", clock)
    assert [await given(tokens) for _ in range(3)] == ["t1", "t2", "t3"]


async def test_a_cancelled_connection_does_not_cancel_the_fetch_of_others(clock: Clock) -> None:
    source = Source(clock)
    tokens = Tokens(source, "x", clock)
    source.gate.clear()
    first, second = (asyncio.create_task(given(tokens)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait({first})
    source.gate.set()
    assert await second == "t1"


def test_clients_on_several_event_loops_share_a_token(clock: Clock) -> None:
    source = Source(clock)
    tokens = Tokens(source, "x", clock)
    assert [asyncio.run(given(tokens)) for _ in range(2)] == ["t1", "t1"]


@pytest.mark.parametrize(
    "value", [AccessToken(""), AccessToken("a b"), AccessToken("a\x01b"), AccessToken("ä"), "token", None]
)
async def test_what_no_broker_takes_is_an_error_that_does_not_show_it(value: Any) -> None:
    with pytest.raises(TokenError) as refused:
        await given(Tokens(lambda: value, "x"))
    assert "a b" not in refused.value.words


# ------------------------------------------------------------------------------------------------------ files


async def test_a_file_is_read_for_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    tokens = tokens_of(OAuth(token_file=str(file)))
    with pytest.raises(TokenError, match="cannot be read") as refused:
        await given(tokens)
    assert refused.value.options == ("oauth_token_file",)
    for text in ("one\n", "two"):
        file.write_text(text)
        assert await given(tokens) == text.strip()
    file.write_text("\n")
    with pytest.raises(TokenError, match="is empty"):
        await given(tokens)
    file.write_text(IdentityProvider().token(lifetime_s=-60))
    with pytest.raises(TokenError, match=r"expired 6[0-9] s ago: it is not rotated"):
        await given(tokens)


def test_the_expiry_of_a_jwt() -> None:
    provider = IdentityProvider()
    assert expiry_of_jwt(provider.token(exp=1_234)) == 1_234
    for token in ("opaque", "a.b.c", "a.bnVsbA.c", provider.token(exp="soon"), provider.token(exp=True)):
        assert expiry_of_jwt(token) is None


# ------------------------------------------------------------------------------------------------------ token endpoint


@pytest.fixture(scope="module")
def identity() -> Iterator[IdentityProvider]:
    with identity_provider() as found:
        yield found


CLIENT = ("oauth_client_id", "oauth_client_secret")


def oauth(identity: IdentityProvider, **changes: Any) -> OAuth:
    usual = {"token_url": f"{identity.url}/token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    return OAuth(**usual | changes)


@pytest.mark.parametrize("says_expiry", [True, False])
def test_client_credentials(identity: IdentityProvider, tmp_path: Path, *, says_expiry: bool) -> None:
    identity.says_expiry = says_expiry
    secret = tmp_path / "secret"
    secret.write_text(f"{CLIENT_SECRET}\n")
    for source in (oauth(identity), oauth(identity, client_secret_file=str(secret), client_secret=None, scope="kafka")):
        token = source_of(source)()
        assert token.expires_at_s == pytest.approx(time.time() + identity.lifetime_s, abs=20)
        assert token.value.count(".") == 2


@pytest.mark.parametrize(
    ("changes", "words", "options"),
    [
        ({"client_secret": "wrong"}, "refuses our client id or secret (status 401: invalid_client:", CLIENT),
        ({"scope": "other"}, "refuses the request (status 400: invalid_scope)", ("oauth_scope",)),
        ({"token_url": "http://127.0.0.1:9/token"}, "cannot be reached (Connection refused)", ("oauth_token_url",)),
        ({"token_url": "ftp://127.0.0.1/token"}, "has no address over HTTP", ("oauth_token_url",)),
        ({"client_secret_file": "/no"}, "client secret file /no cannot be read", ("oauth_client_secret_file",)),
    ],
)  # fmt: skip
def test_each_failure_of_the_endpoint_names_what_to_check(
    identity: IdentityProvider, changes: dict[str, str], words: str, options: tuple[str, ...]
) -> None:
    with pytest.raises(TokenError) as refused:
        source_of(oauth(identity, **changes))()
    assert words in refused.value.words
    assert refused.value.options == options
    assert CLIENT_SECRET not in refused.value.words


def test_the_endpoint_over_tls(tmp_path: Path) -> None:
    authority, strangers = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    with identity_provider(authority.issue("identity")) as identity:
        source_of(oauth(identity, ssl_cafile=str(authority.cert)))()
        for cafile in (str(strangers.cert), None):
            with pytest.raises(TokenError, match="fails the TLS handshake") as refused:
                source_of(oauth(identity, ssl_cafile=cafile))()
            assert refused.value.options == ("oauth_ssl_cafile",)
        with pytest.raises(TokenError, match="cannot be used") as refused:
            source_of(oauth(identity, ssl_cafile=str(tmp_path / "none.pem")))()
        assert refused.value.options == ("oauth_ssl_cafile",)


def test_secrets_are_not_shown() -> None:
    source = OAuth(token_url="https://x/token", client_id="me", client_secret="hush")
    assert "hush" not in repr(source)
    assert "hush" not in source.identity
    assert "hush" not in repr(AccessToken("hush"))
    assert replace(source, client_id="you").identity != source.identity


# ------------------------------------------------------------------------------------------------------ own class


class Own(TokenProvider):
    """As a user writes it."""

    def token(self) -> AccessToken:
        return AccessToken("mine", time.time() + 60, {"zone": "a"})


class NoProvider:
    """Not a subclass."""


async def test_a_provider_of_the_user() -> None:
    tokens = tokens_of(OAuth(provider=f"{__name__}.Own"))
    assert await given(tokens) == "mine"
    assert tokens.extensions() == {"zone": "a"}


async def test_without_a_source_there_is_no_token() -> None:
    with pytest.raises(TokenError, match="needs a source of tokens"):
        await given(tokens_of(OAuth()))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module.Own", "cannot be loaded: No module named 'no_such_module'"),
        (f"{__name__}.Missing", "cannot be loaded"),
        (f"{__name__}.NoProvider", "is not a subclass of inferd.TokenProvider"),
        ("Own", "cannot be loaded"),
    ],
)
def test_a_class_that_cannot_be_used(path: str, words: str) -> None:
    with pytest.raises(TokenError, match=words) as refused:
        load_provider(path)
    assert refused.value.options == ("oauth_provider",)
