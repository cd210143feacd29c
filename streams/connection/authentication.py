# ruff: noqa: SLF001  (those that the docstring names)
"""SASL sessions of aiokafka's connections that end: they authenticate again before, as KIP-368 describes.

A broker reports how long an authentication is valid: until a token expires, or for `connections.max.reauth.ms`. It
closes a connection that is used after that. From 80 % of that time on, the connection authenticates again; meanwhile
other requests wait, because the broker accepts none.

aiokafka ignores the challenge by which a broker rejects a token (RFC 7628, section 3.2.2), and takes the connection for
authenticated. Here it is an error, with what the broker says.

Private names used, each covered by `tests/unit/streams/connection/test_authentication.py`:
`AIOKafkaConnection._do_sasl_handshake`, `_sasl_mechanism`, `_sasl_oauth_token_provider` and `_loop`.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.conn import CloseReason
from aiokafka.errors import SaslAuthenticationFailed
from aiokafka.protocol.admin import SaslAuthenticateRequest, SaslHandShakeRequest

from inferd.streams.connection.oauth import Tokens
from inferd.streams.tasks import BackgroundTasks

RENEW_SHARE, DELAY_S_MIN = 0.8, 0.5
OF_AUTHENTICATION = (SaslAuthenticateRequest, SaslHandShakeRequest)
log = logging.getLogger(__name__)

Send = Callable[[Any, Any, bool], Awaitable[Any]]
_renewing: weakref.WeakKeyDictionary[Any, asyncio.Future[None]] = weakref.WeakKeyDictionary()
"""By connection that authenticates again: done once other requests may be sent."""
_lifetimes_ms: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def send(connection: Any, request: Any, expect_response: bool, stock_send: Send) -> Any:
    """Sends a request by `stock_send`; requests wait while the connection authenticates again."""
    if isinstance(request, SaslAuthenticateRequest):
        return _authenticated(connection, stock_send(connection, request, expect_response))
    renewing = _renewing.get(connection)
    if renewing is None or isinstance(request, OF_AUTHENTICATION):
        return stock_send(connection, request, expect_response)
    return _sent_after(renewing, connection, request, expect_response, stock_send)


def schedule(connection: Any) -> None:
    """Schedules the next authentication of a connection that has authenticated, if the broker limits its session."""
    lifetime_ms = _lifetimes_ms.pop(connection, 0)
    if lifetime_ms > 0:
        delay_s = max(RENEW_SHARE * lifetime_ms / 1_000, DELAY_S_MIN)
        connection._loop.call_later(delay_s, _start, weakref.ref(connection))


async def renew(connection: Any) -> None:
    """Authenticates again. Closes the connection if that fails: the client makes a new one, and logs why it cannot."""
    try:
        if isinstance(tokens := connection._sasl_oauth_token_provider, Tokens):
            await tokens.prepare(fresh=True)
        _renewing[connection] = done = connection._loop.create_future()
        try:
            await connection._do_sasl_handshake()
        finally:
            done.set_result(None)
            del _renewing[connection]
    except Exception as error:  # noqa: BLE001  (whatever the broker or the source of tokens does, the session ends)
        if connection.connected():
            log.warning("cannot authenticate again at %s:%s: %s", connection.host, connection.port, error)
            connection.close(reason=CloseReason.AUTH_FAILURE)
        return
    schedule(connection)


_tasks = BackgroundTasks(lambda error: log.error("authenticating again failed", exc_info=error))


def _start(reference: weakref.ref[Any]) -> None:
    connection = reference()
    if connection is not None and connection.connected():
        _ = _tasks.start(renew(connection))


async def _authenticated(connection: Any, response: Awaitable[Any]) -> Any:
    """The response of the broker. Raises `SaslAuthenticationFailed` if it is the challenge that rejects a token."""
    answer = await response
    if answer.error_code == 0:
        if connection._sasl_mechanism == "OAUTHBEARER" and answer.sasl_auth_bytes:
            said = bytes(answer.sasl_auth_bytes).decode("utf-8", "replace")
            failure = SaslAuthenticationFailed(said)
            connection.close(reason=CloseReason.AUTH_FAILURE, exc=failure)
            raise failure
        _lifetimes_ms[connection] = getattr(answer, "session_lifetime_ms", 0)
    return answer


async def _sent_after(
    renewing: asyncio.Future[None], connection: Any, request: Any, expect_response: bool, stock_send: Send
) -> Any:
    await asyncio.shield(renewing)
    return await stock_send(connection, request, expect_response)
