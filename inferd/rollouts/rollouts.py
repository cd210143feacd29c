"""The topics `rollouts` and `rollout-status` of a tenant."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from aiokafka import TopicPartition

from inferd.audit import AuditLog
from inferd.cluster import Cluster, codec_of_record, is_behind
from inferd.errors import ResultTimeoutError
from inferd.models import ModelLog, default_author
from inferd.schemas.errors import InferenceError, ModelNotFoundError, VersionNotFoundError
from inferd.schemas.models import CHAMPION, AliasKey, VersionKey, check_model_name
from inferd.schemas.rollouts import (
    REQUESTS_MIN,
    AbortRollout,
    Answer,
    Control,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    RolloutMessage,
    RolloutNotFoundError,
    RolloutStatus,
    StartRollout,
    decode_rollout_status,
    encode_rollout_message,
    error_of_answer,
)
from inferd.schemas.topics import Stream

TIMEOUT_S = 30.0
POLL_MS = 200
FETCH_WAIT_MS = 50
STATUSES: Stream = "rollout-status"


class Rollouts:
    """The rollouts of a tenant, one for each model: `Client.rollouts`. `changed_by`: default is user and machine.

    Every method that changes one returns its status after that. It raises the error that the message was refused with,
    `RolloutNotFoundError` or `RolloutConflictError`, and `ResultTimeoutError` if no worker answers in time.
    """

    def __init__(self, cluster: Cluster, models: ModelLog, audit: AuditLog) -> None:
        self._cluster, self._models, self._audit = cluster, models, audit

    async def start(  # noqa: PLR0913  (each is an option of the rollout)
        self,
        model_id: str,
        *,
        to: int,
        steps: str | Sequence[str],
        guards: Sequence[str] = (),
        alias: str = CHAMPION,
        requests_min: int = REQUESTS_MIN,
        guard_requests_min: int = REQUESTS_MIN,
        revision: int | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> RolloutStatus:
        """Start to move `model_id@alias` from its version to version `to`.

        `steps`: such as `shadow:30m,1%:30m,10%:2h:1000,100%`: share, least time, least number of requests (default:
        `requests_min`). `guards`: such as `errors < 0.5%`; each is breached only after `guard_requests_min` requests of
        the step. `revision`: that of the alias which the caller knows.
        `InvalidValueError`, `ModelNotFoundError`, `VersionNotFoundError`, `AliasChangedError`; `GuardUnavailableError`
        for a guard that nothing measures.
        """
        models = await self._models.read(timeout_s)
        if not models.versions_of(model_id):
            raise ModelNotFoundError(f"there is no model {model_id!r}")
        if VersionKey(model_id, to) not in models.versions:
            raise VersionNotFoundError(f"model {model_id!r} has no version {to}")
        newest = models.newest_revision(AliasKey(model_id, alias))
        known = 0 if newest is None else newest.revision
        message = StartRollout(
            id=uuid4().hex, to=to, alias=alias, guards=list(guards),
            steps=[step.strip() for step in steps.split(",")] if isinstance(steps, str) else list(steps),
            requests_min=requests_min, guard_requests_min=guard_requests_min,
            revision=known if revision is None else revision, by=changed_by or default_author(),
        )  # fmt: skip
        return await self._send(model_id, message, timeout_s)

    async def pause(
        self, model_id: str, *, changed_by: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> RolloutStatus:
        """Stay in the running step. Guards still roll back."""
        return await self._control(PauseRollout, model_id, changed_by, timeout_s)

    async def resume(
        self, model_id: str, *, changed_by: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> RolloutStatus:
        """Go on after a pause."""
        return await self._control(ResumeRollout, model_id, changed_by, timeout_s)

    async def promote(
        self, model_id: str, *, changed_by: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> RolloutStatus:
        """Give all requests to the new version now, and end."""
        return await self._control(PromoteRollout, model_id, changed_by, timeout_s)

    async def abort(
        self, model_id: str, *, changed_by: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> RolloutStatus:
        """Return the alias to what it was before the start, and end; also after a promotion."""
        return await self._control(AbortRollout, model_id, changed_by, timeout_s)

    async def _control(
        self, kind: type[Control], model_id: str, changed_by: str | None, timeout_s: float
    ) -> RolloutStatus:
        return await self._send(model_id, kind(id=uuid4().hex, by=changed_by or default_author()), timeout_s)

    async def status(self, model_id: str, *, timeout_s: float = TIMEOUT_S) -> RolloutStatus:
        """The newest status of a model's rollout; `RolloutNotFoundError` if it never had one."""
        found = (await self.list(timeout_s=timeout_s)).get(check_model_name(model_id))
        if found is None:
            raise RolloutNotFoundError(f"model {model_id!r} had no rollout")
        return found

    async def _send(self, model_id: str, message: RolloutMessage, timeout_s: float) -> RolloutStatus:
        key = check_model_name(model_id).encode()
        value = encode_rollout_message(message)
        await self._cluster.partitions("rollouts")
        deadline = time.monotonic() + timeout_s
        async with self._cluster.consumer(
            STATUSES, await self._cluster.partitions(STATUSES), fetch_wait_ms=FETCH_WAIT_MS
        ) as consumer:
            for tp, end in (await consumer.end_offsets(list(consumer.assignment()))).items():
                consumer.seek(tp, end)
            sent = await self._cluster.send("rollouts", key=key, value=value, partition=0)
            await self._cluster.acknowledged("rollouts", [sent])
            while time.monotonic() < deadline:
                for status in _statuses_of(key, await consumer.getmany(timeout_ms=POLL_MS)):
                    if (answer := status.answer(message.id)) is not None:
                        accepted = _accepted(status, answer)
                        await self._note(model_id, message)
                        return accepted
        raise ResultTimeoutError(
            f"rollout of {model_id}: no worker answered within {timeout_s:g} s; the message is still processed"
            " once one does: `inferd rollouts status` shows it"
        )

    async def _note(self, model_id: str, message: RolloutMessage) -> None:
        change = message.__struct_config__.tag
        if isinstance(message, StartRollout):
            steps, guards = ",".join(message.steps), "; ".join(message.guards) or None
            await self._audit.note(
                "rollout", f"{model_id}@{message.alias}", changed_by=message.by, change=change, to=message.to,
                steps=steps, guards=guards,
            )  # fmt: skip
        else:
            await self._audit.note("rollout", model_id, changed_by=message.by, change=change)

    async def list(self, *, timeout_s: float = TIMEOUT_S) -> dict[str, RolloutStatus]:
        """The newest status of each model that had a rollout, by model."""
        found: dict[str, RolloutStatus] = {}
        partitions = await self._cluster.partitions(STATUSES)
        async with self._cluster.within(timeout_s, "reading the rollouts"), self._cluster.consumer(
            STATUSES, partitions, fetch_wait_ms=FETCH_WAIT_MS
        ) as consumer:  # fmt: skip
            await consumer.seek_to_beginning()
            while await is_behind(consumer):
                for key, status in _statuses(await consumer.getmany(timeout_ms=POLL_MS)):
                    if status.rollout is not None:
                        found[key.decode("utf-8", "replace")] = status
        return dict(sorted(found.items()))

    async def watch(self, model_id: str, *, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[RolloutStatus, None]:
        """The newest status, and those that follow, until the rollout has ended.

        `RolloutNotFoundError` if the model never had one.
        """
        partitions = await self._cluster.partitions(STATUSES)
        async with self._cluster.consumer(STATUSES, partitions, fetch_wait_ms=FETCH_WAIT_MS) as consumer:
            # Positions first: what is published while the newest status is read follows it, or repeats it.
            for tp, end in (await consumer.end_offsets(list(consumer.assignment()))).items():
                consumer.seek(tp, end)
            newest = await self.status(model_id, timeout_s=timeout_s)
            yield newest
            while newest.rollout is None or not newest.rollout.ended:
                for status in _statuses_of(model_id.encode(), await consumer.getmany(timeout_ms=POLL_MS)):
                    if status.rollout is not None and status.at > newest.at:
                        newest = status
                        yield status


def _accepted(status: RolloutStatus, answer: Answer) -> RolloutStatus:
    if answer.code is not None:
        raise error_of_answer(answer.code, answer.reason or "")
    return status


def _statuses_of(key: bytes, batches: Mapping[TopicPartition, Sequence[Any]]) -> Iterator[RolloutStatus]:
    return (status for each, status in _statuses(batches) if each == key)


def _statuses(batches: Mapping[TopicPartition, Sequence[Any]]) -> Iterator[tuple[bytes, RolloutStatus]]:
    """Records that are no statuses are left out."""
    for records in batches.values():
        for record in records:
            try:
                yield record.key or b"", decode_rollout_status(record.value, codec_of_record(record.headers))
            except InferenceError:
                continue
