"""The topic `audit` of a tenant: who changed what."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from datetime import datetime

from inferd.actor import Actor, current_actor
from inferd.cluster import Cluster, records_between
from inferd.models import default_author
from inferd.schemas.audit import HEADERS, Action, AuditRecord, decode_audit, encode_audit
from inferd.schemas.errors import MalformedError, ServerError

logger = logging.getLogger(__name__)


class AuditLog:
    """Writes and reads the audit of a tenant.

    A record is written once its action has been accepted. An action is not undone if its record cannot be written:
    that is logged as a warning.
    """

    def __init__(self, cluster: Cluster, client_id: str) -> None:
        """`client_id`: of the Kafka client, the origin of actions that no HTTP caller asked for."""
        self._cluster, self._client_id = cluster, client_id

    async def note(self, action: Action, subject: str, *, changed_by: str | None = None, **details: object) -> None:
        """Write that `action` on `subject` was accepted; details that are None are left out.

        `changed_by`: who the caller says did it. It is the name of an action without an HTTP caller, and only a detail
        of others: a token proves more than a parameter.
        """
        actor = self.actor(changed_by)
        texts = {name: str(value) for name, value in details.items() if value is not None}
        if changed_by and changed_by != actor.name:
            texts["changed_by"] = changed_by
        record = AuditRecord(
            at=int(time.time() * 1_000), action=action, subject=subject, by=actor.name, origin=actor.origin,
            details=texts,
        )  # fmt: skip
        try:
            sent = await self._cluster.send(
                "audit", key=subject.encode()[:500], value=encode_audit(record), headers=HEADERS, partition=0
            )
            await self._cluster.acknowledged("audit", [sent])
        except ServerError as error:
            logger.warning("%s of %s was done, but is not in the audit: %s", action, subject, error.message)

    def actor(self, changed_by: str | None = None) -> Actor:
        """The actor that this task acts for."""
        return current_actor() or Actor(changed_by or default_author(), f"kafka {self._client_id}")

    async def read(self, since: datetime | None = None) -> AsyncGenerator[AuditRecord, None]:
        """The records that are in the topic now, oldest first; `since`: written since then.

        Records that are no audit records are left out.
        """
        partitions = await self._cluster.partitions("audit")
        async with self._cluster.consumer("audit", partitions[:1]) as consumer:
            async for record in records_between(consumer, since):
                try:
                    found = decode_audit(record.value)
                except MalformedError:
                    continue
                yield found
