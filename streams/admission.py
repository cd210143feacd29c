"""Which tenants a worker serves: those whose rights, topics and models are there. The others wait by name.

The broker is asked for the rights regularly. A tenant that lacks one waits until it is granted, and says for what; the
other tenants are served meanwhile. Topics that must not be worked on are barred: they are neither assigned to this
worker nor fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from inferd.schemas.topics import TenantTopics
from inferd.streams.connection import client_options
from inferd.streams.kafka import (
    ALL,
    Right,
    TopicsError,
    TopicState,
    describe_missing,
    ensure_topics,
    missing_rights,
    worker_rights,
)
from inferd.streams.settings import StreamSettings

log = structlog.get_logger(__name__)

LOOK_S, LOOK_WHILE_WAITING_S = 10.0, 1.0
"""How often the broker is asked: while all is well (what is refused meanwhile is noticed at once), and otherwise."""
SAMPLED_PARTITIONS = 1
"""Partitions whose transactional ids are asked about while all is well."""
MODELS_UNREAD = "its models are being read"


class Models(Protocol):
    """What reads the model records of tenants."""

    def follow(self, tenants: frozenset[str]) -> None:
        """Reads the records of these tenants, and of no others, from now on."""

    @property
    def loaded(self) -> frozenset[str]:
        """Tenants whose records were read to their end, and whose models were loaded."""


class Admission:
    """The tenants of a worker, and what those wait for that are not served."""

    def __init__(self, settings: StreamSettings, bar: Callable[[frozenset[str]], None]) -> None:
        """`bar` is called with the topics that must not be worked on, again and again."""
        self.waits: Mapping[str, str] = {}
        """By tenant: what it waits for, in words."""
        self._settings, self._bar = settings, bar
        self._all, self._sample = worker_rights(settings), worker_rights(settings, SAMPLED_PARTITIONS)
        self._missing: list[Right] = []
        self._verified: set[str] = set()
        self._admitted: set[str] = set()
        self._waits_since: dict[str, float] = {}
        self._unfit: dict[str, str] = {}
        """By tenant: why its topics do not fit, where that showed after the start."""
        self._client: AIOKafkaClient | None = None
        self._suspected = asyncio.Event()

    # ------------------------------------------------------------------ asked for

    def barred(self) -> frozenset[str]:
        """Topics that must not be worked on: those of tenants that were never admitted, and those that lack a right."""
        waiting = (tenant for tenant in self._settings.tenants if tenant not in self._admitted)
        topics = {topic for tenant in waiting for topic in self._lane_topics(tenant)}
        return frozenset(topics.union(*(right.stops for right in self._missing)))

    def refusal(self, tenant: str) -> str | None:
        """Why a tenant cannot be served at all; None if it can, though perhaps not everything of it."""
        return None if tenant in self._admitted else self.waits.get(tenant, MODELS_UNREAD)

    @property
    def fault(self) -> str | None:
        """What all tenants wait for; None if one of them does not wait."""
        if len(self.waits) < len(self._settings.tenants):
            return None
        return "; ".join(f"tenant {tenant} waits: {reason}" for tenant, reason in self.waits.items())

    def suspect(self) -> None:
        """Something was refused for want of a right: asks the broker now."""
        self._suspected.set()

    # ------------------------------------------------------------------ life

    async def open(self) -> list[TopicState]:
        """Looks at rights and topics for the first time; gives the topics of the tenants that lack no right.

        `TopicsError` where these do not fit; `KafkaError` where the broker does not answer.
        """
        self._missing = await self._look(self._all)
        self._verified = {tenant for tenant in self._settings.tenants if not self._lacks(tenant)}
        self._note()
        if not self._verified:
            return []
        return await ensure_topics(self._only(*self._verified))

    @property
    def readable(self) -> frozenset[str]:
        """Tenants whose topics fit, and whose model records may be read."""
        unreadable = {right.tenant for right in self._missing if right.resource == "topic" and _of_models(right)}
        return frozenset(self._verified) - unreadable

    def admit(self, models: Models) -> None:
        """Serves the tenants whose models are loaded by now."""
        self._admitted |= self._verified & models.loaded
        self._note()
        self._bar(self.barred())

    async def run(self, models: Models) -> None:
        """Follows what the broker allows, until cancelled."""
        while True:
            with contextlib.suppress(KafkaError, OSError):  # what is known holds until the broker answers
                await self._step(models)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_WHILE_WAITING_S if self.waits else LOOK_S):
                    await self._suspected.wait()

    async def close(self) -> None:
        """Closes the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _step(self, models: Models) -> None:
        everything = bool(self.waits) or self._suspected.is_set()
        self._suspected.clear()
        self._missing = await self._look(self._all if everything else self._sample)
        for tenant in self._settings.tenants:
            if tenant not in self._verified and not self._lacks(tenant):
                await self._verify(tenant)
        models.follow(self.readable)
        self.admit(models)

    async def _look(self, rights: list[Right]) -> list[Right]:
        try:
            async with asyncio.timeout(self._settings.group.request_timeout_s):
                if self._client is None:
                    self._client = AIOKafkaClient(**client_options(self._settings.connection))
                    await self._client.bootstrap()
                return await missing_rights(self._client, rights)
        except BaseException:
            await self.close()
            raise

    async def _verify(self, tenant: str) -> None:
        try:
            await ensure_topics(self._only(tenant))
        except TopicsError as error:
            self._unfit[tenant] = error.message
        else:
            self._unfit.pop(tenant, None)
            self._verified.add(tenant)

    def _note(self) -> None:
        """Says what has changed since the last look."""
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
        if tenant in self._unfit:
            return self._unfit[tenant]
        return MODELS_UNREAD if tenant in self.waits and tenant not in self._admitted else None

    def _lacks(self, tenant: str) -> list[Right]:
        return [right for right in self._missing if right.tenant in (None, tenant)]

    def _lane_topics(self, tenant: str) -> frozenset[str]:
        topics = TenantTopics(self._settings.namespace, tenant)
        return frozenset(map(topics.name, ALL))

    def _only(self, *tenants: str) -> StreamSettings:
        return replace(self._settings, tenants=tenants)


def _of_models(right: Right) -> bool:
    return right.name.rpartition(".")[2] in ("models", "model-artifacts")
