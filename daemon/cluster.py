"""Probes of a Kafka cluster: its bootstrap servers one by one, with the reason if one does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.metadata import MetadataRequest

from inferd.schemas.connection import BrokerUnreachableError, KafkaConnection
from inferd.streams.connection import client_options, reason_of, setting_name

ApiVersions = dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class BrokerAnswer:
    """A broker that answered: its address, and the API versions it supports (API key: lowest, highest)."""

    host: str
    port: int
    api_versions: ApiVersions


async def reach(connection: KafkaConnection, timeout_s: float) -> BrokerAnswer:
    """The first bootstrap server that answers and authenticates within `timeout_s`; else `BrokerUnreachableError`."""
    reasons = []
    for host, port in bootstrap_addresses(connection.bootstrap_servers):
        try:
            async with asyncio.timeout(timeout_s):
                return await _ask(connection, host, port, timeout_s)
        except (OSError, KafkaError) as error:
            reasons.append(f"{host}:{port} {why(error, connection, timeout_s)}")
    raise BrokerUnreachableError(f"no Kafka broker answers: {'; '.join(reasons)}")


async def metadata(connection: KafkaConnection) -> ClusterMetadata:
    """The cluster's brokers and all topics that this user may describe. Raises `KafkaError`."""
    client = AIOKafkaClient(**client_options(connection), client_id="inferd")
    try:
        await client.bootstrap()
        found: ClusterMetadata = await client.fetch_all_metadata()
        return found
    finally:
        await client.close()


async def connect(connection: KafkaConnection, host: str, port: int, timeout_s: float) -> AIOKafkaConnection:
    """An authenticated connection to one broker. The caller must close it."""
    options = client_options(connection)
    del options["bootstrap_servers"]
    conn: AIOKafkaConnection = await create_conn(
        host, port, client_id="inferd", request_timeout_ms=int(timeout_s * 1_000), **options
    )
    return conn


def bootstrap_addresses(servers: str) -> list[tuple[str, int]]:
    """Hosts and ports of `host:port,…`."""
    addresses = []
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        addresses.append((host.strip("[]"), int(port)))
    return addresses


def why(error: BaseException, connection: KafkaConnection, timeout_s: float) -> str:
    """Why a broker could not be reached, as text that follows its address, with the settings to check."""
    if isinstance(error, TimeoutError):
        return f"does not answer within {timeout_s:g} s"
    reason = reason_of(error, connection)
    return f"failed ({type(error).__name__}: {error})" if reason is None else reason.text(setting_name)


async def _ask(connection: KafkaConnection, host: str, port: int, timeout_s: float) -> BrokerAnswer:
    conn = await connect(connection, host, port, timeout_s)
    try:
        # A SASL listener answers ApiVersions before authentication, and closes the connection on any other request.
        await conn.send(MetadataRequest([]))
        response = await conn.send(ApiVersionRequest())
        return BrokerAnswer(host, port, _versions(response.api_versions))
    finally:
        conn.close()


def _versions(rows: Sequence[tuple[int, int, int]]) -> ApiVersions:
    return {key: (least, most) for key, least, most in rows}
