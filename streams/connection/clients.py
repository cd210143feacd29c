# ruff: noqa: SLF001  (those that the docstring names)
"""Connections to brokers: how aiokafka's clients are changed in this process.

- A client that reaches none of its known brokers asks its bootstrap servers again (KIP-899): the brokers may have new
  addresses.
- Attempts to connect back off, for all clients together (`streams/connection/attempts.py`), and take at most
  `SETUP_TIMEOUT_S`.
- A broker that hangs, or that a broken network hides, is avoided while others are known to answer: by bootstraps, and
  by requests that any broker can answer. aiokafka's client would ask it again and again, each time until a timeout, and
  in the meantime connect to no other broker, either.
- Password files are read before each connection, and TLS files that have changed (`streams/connection/tls.py`).
- Tokens are fetched before they expire (`oauth.py`), and sessions that end are renewed (`authentication.py`).
- After a reset, the transport of a connection is closed some moments before its reader notices. In that time asyncio's
  transport drops what is written, and uvloop's raises RuntimeError. aiokafka only expects OSError: the exception would
  end the fetcher's task, and the consumer would never fetch again.
- A broker that has just started may answer that the cluster has no broker yet. aiokafka's client accepts that answer,
  but fails an assertion when it looks up a coordinator.
- A consumer that stops awaits the requests that it has cancelled, and raises the CancelledError of one that was waiting
  to retry: its caller would seem to be cancelled.

Private names used, each covered by `tests/unit/streams/connection/test_clients.py`: `AIOKafkaConnection.send` and
`connect`, `AIOKafkaClient.bootstrap`, `hosts`, `send`, `get_random_node`, `coordinator_lookup`, `_get_conn` and
`_metadata_update`, `Fetcher.close` (replaced), which all clients use; `AIOKafkaClient._get_conn_lock_value`;
`Fetcher._fetch_task` and `_pending_tasks`; `AIOKafkaConnection._writer` and `_sasl_plain_password`;
`_security_protocol`, `_sasl_plain_username`, `_sasl_oauth_token_provider` and `_ssl_context` of both;
`AIOKafkaClient._conns` and `_bootstrap_servers`; `ClusterMetadata._bootstrap_brokers`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata

from inferd.schemas.connection import KafkaConnection, read_password
from inferd.schemas.oauth import OAuth
from inferd.streams.connection import authentication
from inferd.streams.connection import fetcher as fetcher_of_sessions
from inferd.streams.connection.attempts import BrokerTarget, ConnectionAttempts, Servers
from inferd.streams.connection.oauth import Tokens, tokens_of
from inferd.streams.connection.tls import RenewingContext, files_of, tls_context
from inferd.streams.connection.unreachable import Reason, reason_of
from inferd.streams.tasks import cancelled

log = logging.getLogger(__name__)

SETUP_TIMEOUT_S = 10.0
"""From the TCP connection to the last answer of the SASL handshake."""
HUNG_S = 2.0
"""An attempt that its caller gives up after so long has failed: the next one goes to another broker."""
PACE_S = 0.2
"""Maximum wait of a caller that needs a connection which may not be tried yet."""

_stock_send: Any = AIOKafkaConnection.send
_stock_connect: Any = AIOKafkaConnection.connect
_stock_lookup: Any = AIOKafkaClient.coordinator_lookup
_stock_bootstrap: Any = AIOKafkaClient.bootstrap
_stock_hosts: Any = AIOKafkaClient.hosts
_stock_client_send: Any = AIOKafkaClient.send
_stock_random_node: Any = AIOKafkaClient.get_random_node
_stock_get_conn: Any = AIOKafkaClient._get_conn
_stock_metadata_update: Any = AIOKafkaClient._metadata_update  # tests put it back
_stock_close_fetcher: Any = Fetcher.close
_attempts = ConnectionAttempts()
_connecting: WeakKeyDictionary[Any, dict[Any, asyncio.Lock]] = WeakKeyDictionary()
"""By client and node, held while it connects."""
_bootstrap_servers: ContextVar[Servers] = ContextVar("bootstrap_servers", default=())
"""Bootstrap servers of the client that connects; its connections do not have them."""


class PasswordFile(str):
    """A path in the place of a password; `_connect` reads the file."""

    __slots__ = ()


def client_options(connection: KafkaConnection) -> dict[str, Any]:
    """The keyword arguments that all aiokafka clients of this process share."""
    install()
    if connection.sasl_password_file is not None:
        password = PasswordFile(connection.sasl_password_file)
        connection = replace(connection, sasl_password=password, sasl_password_file=None)
    options = connection.aiokafka_options()
    if options.get("sasl_mechanism") == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = tokens_of(connection.oauth or OAuth())
    if "ssl_context" in options:
        options["ssl_context"] = tls_context(connection)
    return options


def install() -> None:
    """Installs the changes for all clients and connections of this process. Repeated calls have no effect."""
    connection: Any = AIOKafkaConnection
    connection.send, connection.connect = _send, _connect
    client: Any = AIOKafkaClient
    client.coordinator_lookup, client.bootstrap = _coordinator_lookup, _bootstrap
    client.hosts, client.send, client.get_random_node = property(_hosts), _client_send, _random_node
    client._get_conn, client._metadata_update = _get_conn, _metadata_update
    fetcher: Any = Fetcher
    fetcher.close = _close_fetcher
    fetcher_of_sessions.install()


def why_unreachable(connection: KafkaConnection) -> tuple[str, Reason] | None:
    """Address of the last broker that could not be reached, and why; None if all were reached."""

    protocol = connection.security_protocol
    username = _user_of(connection) if protocol.startswith("SASL") else None
    files = files_of(connection) if "SSL" in protocol.split("_") else ()
    ours = (_servers(connection.bootstrap_servers), protocol, username, files)
    latest = _attempts.latest(lambda target: target[2:] == ours)
    if latest is None:
        return None
    target, failure = latest
    reason = reason_of(failure.error, connection) or Reason("unreachable", f"cannot be reached ({failure.error})")
    return f"{target.host}:{target.port}", reason


def _send(connection: Any, request: Any, expect_response: bool = True) -> Any:
    """Like aiokafka's own; raises `KafkaConnectionError` for every closed connection."""
    writer = connection._writer
    try:
        return authentication.send(connection, request, expect_response, _stock_send)
    except RuntimeError as error:
        if writer is None or not writer.is_closing():
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} broken: {error}") from error


async def _connect(connection: Any) -> Any:
    """Like aiokafka's own, within `SETUP_TIMEOUT_S`. Records the outcome; every failure is an `OSError` or
    `KafkaError`."""
    target = _target(connection, connection.host, connection.port, _bootstrap_servers.get())
    begun = time.monotonic()
    try:
        if isinstance(connection._sasl_plain_password, PasswordFile):
            connection._sasl_plain_password = read_password(connection._sasl_plain_password)
        if isinstance(tokens := connection._sasl_oauth_token_provider, Tokens):
            await tokens.prepare()
        async with asyncio.timeout(SETUP_TIMEOUT_S):
            connected = await _stock_connect(connection)
    except asyncio.CancelledError:
        if time.monotonic() - begun >= HUNG_S:
            _attempts.failed(target, TimeoutError())
        raise
    except Exception as error:
        if _attempts.failed(target, error):
            log.warning("cannot connect to %s:%s: %r", target.host, target.port, error)
        if isinstance(error, OSError | KafkaError):
            raise
        # A server that is not a broker may send any answer.
        raise KafkaConnectionError(f"{target.host}:{target.port} sent an invalid response: {error!r}") from error
    if _attempts.succeeded(target):
        log.info("connected to %s:%s again", target.host, target.port)
    authentication.schedule(connection)
    return connected


async def _get_conn(
    client: Any, node_id: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT, no_hint: bool = False
) -> AIOKafkaConnection | None:
    """Like aiokafka's own; None, after a moment, if the last attempt failed too recently to retry."""
    node, connected = client.cluster.broker_metadata(node_id), client._conns.get((node_id, group))
    if node is not None and (connected is None or not connected.connected()):
        servers = _servers(client._bootstrap_servers)
        _bootstrap_servers.set(servers)
        pause_s = _attempts.claim(_target(client, node.host, node.port, servers))
        if pause_s:
            await asyncio.sleep(min(pause_s, PACE_S))
            client.force_metadata_update()
            return None
    # aiokafka has one lock for all nodes: one that hangs would keep it from connecting to the others.
    client._get_conn_lock_value = nullcontext()
    async with _connecting.setdefault(client, {}).setdefault((node_id, group), asyncio.Lock()):
        connection: AIOKafkaConnection | None = await _stock_get_conn(client, node_id, group=group, no_hint=no_hint)
    return connection


def _hosts(client: Any) -> list[Any]:
    """Like aiokafka's own: the bootstrap servers in random order, but those that failed are last."""
    servers = _servers(client._bootstrap_servers)
    hosts = collect_hosts(client._bootstrap_servers)
    return sorted(hosts, key=lambda host: _failed(_target(client, host[0], host[1], servers)))


def _random_node(client: Any) -> Any:
    """Like aiokafka's own, but one that failed only if all did; None if no node is known."""
    return next(iter(_nodes(client)), None)


def _nodes(client: Any) -> list[Any]:
    """The ids of all known nodes in random order; those that failed are last."""
    servers = _servers(client._bootstrap_servers)
    nodes = list(client.cluster.brokers())
    random.shuffle(nodes)
    nodes.sort(key=lambda node: _failed(_target(client, node.host, node.port, servers)))
    return [node.nodeId for node in nodes]


def _failed(target: BrokerTarget) -> bool:
    return _attempts.failure(target) is not None


async def _client_send(client: Any, node_id: Any, request: Any, **options: Any) -> Any:
    """Like aiokafka's own; a broker that does not answer is a failed one until a client connects to it again."""
    node = client.cluster.broker_metadata(node_id)
    try:
        return await _stock_client_send(client, node_id, request, **options)
    except RequestTimedOutError as error:
        if node is not None:
            _attempts.failed(_target(client, node.host, node.port, _servers(client._bootstrap_servers)), error)
        raise


async def _bootstrap(client: Any) -> None:
    """Like aiokafka's own, as soon as one of the servers may be tried. Its error has the last failure as its cause."""
    servers = _servers(client._bootstrap_servers)
    _bootstrap_servers.set(servers)
    targets = [_target(client, host, port, servers) for host, port in servers]
    while pause_s := min(map(_attempts.claim, targets), default=0.0):  # noqa: ASYNC110  (others may try first)
        await asyncio.sleep(pause_s)
    try:
        await _stock_bootstrap(client)
    except KafkaConnectionError as error:
        latest = _attempts.latest(lambda target: target in targets)
        raise error from (latest[1].error if latest else None)


async def _metadata_update(client: Any, metadata: ClusterMetadata, topics: Any) -> bool:
    """Like aiokafka's own; closes connections without an answer, and asks the bootstrap servers if no known broker
    answers."""
    request = MetadataRequest(list(topics) if topics else None)
    first = ("bootstrap", ConnectionGroup.DEFAULT)
    known = [*_nodes(client), *(["bootstrap"] if first in client._conns else [])]
    for node_id in known:
        response = await _metadata_of(client, node_id, request)
        if response is None:
            continue
        if not response.brokers:  # the topics may be about to be created
            return False
        metadata.update_metadata(response)
        if first in client._conns and client.cluster.brokers():
            client._conns.pop(first).close()
        return True
    for node_id in _bootstrap_nodes(client):
        response = await _metadata_of(client, node_id, request, keep=False)
        if response is not None and response.brokers:
            metadata.update_metadata(response)
            log.info("the bootstrap servers were queried again: %s", metadata)
            return True
    log.warning("Unable to update metadata from %s", known)
    metadata.failed_update(None)
    return False


async def _metadata_of(client: Any, node_id: Any, request: MetadataRequest, *, keep: bool = True) -> Any:
    """A node's answer; None if there is none. The connection is closed then, and otherwise kept if it is wanted."""
    connection = await client._get_conn(node_id)
    if connection is None:
        return None
    try:
        response = await connection.send(request)
    except (KafkaError, TimeoutError) as error:
        log.warning("Unable to request metadata from node with id %s: %r", node_id, error)
        _attempts.failed(_target(client, connection.host, connection.port, _servers(client._bootstrap_servers)), error)
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        return None
    if not keep:
        connection.close(reason=CloseReason.SHUTDOWN)
    return response


async def _close_fetcher(fetcher: Any) -> None:
    """Like aiokafka's own, once its tasks have ended."""
    await cancelled({fetcher._fetch_task})
    await cancelled(fetcher._pending_tasks)
    fetcher._pending_tasks.clear()
    await _stock_close_fetcher(fetcher)


def _bootstrap_nodes(client: Any) -> list[str]:
    """The bootstrap servers as nodes that the client can connect to."""
    servers = {f"bootstrap-{number}": address for number, address in enumerate(_servers(client._bootstrap_servers))}
    client.cluster._bootstrap_brokers = {
        name: BrokerMetadata(name, *address, None) for name, address in servers.items()
    }
    return list(servers)


async def _coordinator_lookup(client: Any, coordinator_type: Any, coordinator_key: Any) -> Any:
    """Like aiokafka's own; raises `NodeNotReadyError`, which callers retry, if no broker is known yet."""
    if client.get_random_node() is None:
        raise NodeNotReadyError("the cluster lists no broker yet")
    return await _stock_lookup(client, coordinator_type, coordinator_key)


def _servers(servers: str | list[str]) -> Servers:
    """Hosts and ports of bootstrap servers, sorted."""
    return tuple(sorted((host, port) for host, port, _ in collect_hosts(servers)))


def _target(owner: Any, host: str, port: int, bootstrap: Servers) -> BrokerTarget:
    """The address that a client or connection of aiokafka connects to, and its cluster and credentials."""
    context = owner._ssl_context
    files = context.files if isinstance(context, RenewingContext) else ()
    tokens = owner._sasl_oauth_token_provider
    username = tokens.identity if isinstance(tokens, Tokens) else owner._sasl_plain_username
    return BrokerTarget(host, port, bootstrap, owner._security_protocol, username, files)


def _user_of(connection: KafkaConnection) -> str | None:
    """Who connects; for OAUTHBEARER, the source of the tokens."""
    if connection.sasl_mechanism != "OAUTHBEARER":
        return connection.sasl_username
    return (connection.oauth or OAuth()).identity
