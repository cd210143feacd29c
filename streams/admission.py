"""Admission of tenants: a worker serves those that have their rights, topics and models. The others wait.

The worker polls its access rights. A tenant that lacks one waits until the right is granted, and its status says which
one is missing; the other tenants are served meanwhile. The topics of a waiting tenant are excluded: they are neither
assigned to this worker nor fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from inferd.schemas.topics import TenantTopics
from inferd.streams.connection import client_options
from inferd.streams.kafka import (
    Right,
    TopicsError,
    TopicState,
    check_noted_partitions,
    describe_missing,
    ensure_topics,
    missing_rights,
    read_streams,
    worker_rights,
)
from inferd.streams.settings import StreamSettings

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S, CHECK_INTERVAL_WAITING_S = 10.0, 1.0
"""Polling interval if no tenant waits (a denied request triggers a check at once), and if one does."""
SAMPLED_PARTITIONS = 1
"""Partitions whose transactional ids are checked if no tenant waits."""
MODELS_UNREAD = "its models are being read"


class ModelFollower(Protocol):
    """Reads the model records of tenants; `inferd.streams.models.follower` has the implementation."""

    def follow(self, tenants: frozenset[str]) -> None:
        """Set the tenants whose model records are read."""

    @property
    def loaded(self) -> frozenset[str]:
        """Tenants whose model records were read to the end and whose models were loaded."""


class Admission:
    """The tenants that a worker serves, and the reason why each of the others waits."""

    def __init__(self, settings: StreamSettings, exclude: Callable[[frozenset[str]], None]) -> None:
        """`exclude` is called with the excluded topics after every check."""
        self.waits: Mapping[str, str] = {}
        """By tenant: the reason why it waits."""
        self._settings, self._exclude = settings, exclude
        self._all, self._sample = worker_rights(settings), worker_rights(settings, SAMPLED_PARTITIONS)
        self._missing: list[Right] = []
        self._verified: set[str] = set()
        self._admitted: set[str] = set()
        self._waits_since: dict[str, float] = {}
        self._topic_errors: dict[str, str] = {}
        """By tenant: what is wrong with its topics, if that was found after the start."""
        self._client: AIOKafkaClient | None = None
        self._one_query = asyncio.Lock()
        self._recheck = asyncio.Event()

    # ------------------------------------------------------------------ state

    def excluded(self) -> frozenset[str]:
        """Topics that must not be consumed: those of tenants that were never admitted, and those that lack a right."""
        waiting = (tenant for tenant in self._settings.tenants if tenant not in self._admitted)
        topics = {topic for tenant in waiting for topic in self._lane_topics(tenant)}
        return frozenset(topics.union(*(right.stops for right in self._missing)))

    def unserved_reason(self, tenant: str) -> str | None:
        """Why a tenant is not served at all; None if it is served, at least in part."""
        return None if tenant in self._admitted else self.waits.get(tenant, MODELS_UNREAD)

    @property
    def fault(self) -> str | None:
        """The reasons of all tenants if all of them wait, else None."""
        if len(self.waits) < len(self._settings.tenants):
            return None
        return "; ".join(f"tenant {tenant} waits: {reason}" for tenant, reason in self.waits.items())

    async def missing(self, rights: Collection[Right]) -> Sequence[Right]:
        """Those of some access rights that this user lacks. Raises a `KafkaError` if the broker does not answer."""
        return await self._query(list(rights))

    def recheck(self) -> None:
        """Check all rights now: the broker has denied a request."""
        self._recheck.set()

    # ------------------------------------------------------------------ lifecycle

    async def open(self) -> list[TopicState]:
        """The first check of rights and topics; returns the topics of the tenants that have all rights.

        `TopicsError` if topics are misconfigured; `KafkaError` if the broker does not answer.
        """
        self._missing = await self._query(self._all)
        self._verified = {tenant for tenant in self._settings.tenants if not self._lacks(tenant)}
        self._update_waits()
        if not self._verified:
            return []
        verified = self._only(*self._verified)
        topics = await ensure_topics(verified)
        await check_noted_partitions(verified)
        return topics

    @property
    def readable(self) -> frozenset[str]:
        """Tenants whose topics are verified and whose model records this worker may read."""
        unreadable = {right.tenant for right in self._missing if right.resource == "topic" and _of_models(right)}
        return frozenset(self._verified) - unreadable

    def admit(self, models: ModelFollower) -> None:
        """Serve the tenants whose models are loaded by now."""
        self._admitted |= self._verified & models.loaded
        self._update_waits()
        self._exclude(self.excluded())

    async def run(self, models: ModelFollower) -> None:
        """Check rights and topics periodically, until cancelled."""
        while True:
            with contextlib.suppress(KafkaError, OSError):  # the last state holds until the broker answers
                await self._step(models)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_WAITING_S if self.waits else CHECK_INTERVAL_S):
                    await self._recheck.wait()

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _step(self, models: ModelFollower) -> None:
        everything = bool(self.waits) or self._recheck.is_set()
        self._recheck.clear()
        self._missing = await self._query(self._all if everything else self._sample)
        for tenant in self._settings.tenants:
            if tenant not in self._verified and not self._lacks(tenant):
                await self._verify(tenant)
        models.follow(self.readable)
        self.admit(models)

    async def _query(self, rights: list[Right]) -> list[Right]:
        async with self._one_query:  # a query that fails closes the client
            try:
                async with asyncio.timeout(self._settings.group.request_timeout_s):
                    client = self._client
                    if client is None:
                        client = self._client = AIOKafkaClient(**client_options(self._settings.connection))
                        await client.bootstrap()
                    return await missing_rights(client, rights)
            except BaseException:
                await self.close()
                raise

    async def _verify(self, tenant: str) -> None:
        try:
            await ensure_topics(self._only(tenant))
            await check_noted_partitions(self._only(tenant))
        except TopicsError as error:
            self._topic_errors[tenant] = error.message
        else:
            self._topic_errors.pop(tenant, None)
            self._verified.add(tenant)

    def _update_waits(self) -> None:
        """Update `waits` and log what has changed."""
        waits = {t: reason for t in self._settings.tenants if (reason := self._wait(t)) is not None}
        for tenant, reason in waits.items():
            if self.waits.get(tenant) != reason:
                log.warning("tenant_waits", tenant=tenant, reason=reason)
        for tenant in waits:
            self._waits_since.setdefault(tenant, time.monotonic())
        for tenant in self.waits:
            if tenant not in waits:
                waited_s = time.monotonic() - self._waits_since.pop(tenant)
                log.info("tenant_served", tenant=tenant, waited_s=round(waited_s, 1))
        self.waits = waits

    def _wait(self, tenant: str) -> str | None:
        if lacking := self._lacks(tenant):
            return describe_missing(lacking, self._settings.connection)
        if tenant in self._topic_errors:
            return self._topic_errors[tenant]
        return MODELS_UNREAD if tenant in self.waits and tenant not in self._admitted else None

    def _lacks(self, tenant: str) -> list[Right]:
        return [right for right in self._missing if right.tenant in (None, tenant)]

    def _lane_topics(self, tenant: str) -> frozenset[str]:
        topics = TenantTopics(self._settings.namespace, tenant)
        return frozenset(map(topics.name, read_streams(self._settings)))

    def _only(self, *tenants: str) -> StreamSettings:
        return replace(self._settings, tenants=tenants)


def _of_models(right: Right) -> bool:
    return right.name.rpartition(".")[2] in ("models", "model-artifacts", "routes")
