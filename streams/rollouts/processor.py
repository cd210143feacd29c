"""The processor of `rollouts`: applies messages and the clock to rollouts, and moves aliases.

State, changes of aliases and statuses are published in one transaction. A worker that only believes that it owns the
rollouts is fenced, so that none of its changes is ever read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from aiokafka import TopicPartition
from msgspec.structs import replace

from inferd.schemas.codecs import JSON
from inferd.schemas.errors import ModelServingError
from inferd.schemas.headers import parse_headers
from inferd.schemas.models import CHAMPION, Alias, encode_alias
from inferd.schemas.rollouts import (
    ANSWERS_MAX,
    REASON_CHARS_MAX,
    Answer,
    Metric,
    RolloutMessage,
    RolloutStatus,
    StartRollout,
    decode_rollout_message,
    encode_rollout_status,
    parse_rollout_key,
)
from inferd.streams.group import Records
from inferd.streams.inference import Record
from inferd.streams.lane import OutputBatch, Work
from inferd.streams.lifecycle import LifecycleContext, LifecycleProcessor
from inferd.streams.rollouts.figures import Compared, measures_of
from inferd.streams.rollouts.measuring import Measuring, Windows
from inferd.streams.rollouts.rollout_store import RolloutsPartition, RolloutStore
from inferd.streams.rollouts.transitions import Change, Terms, advance, tick

log = structlog.get_logger(__name__)

RECORDS_MAX = 64
STATUS_INTERVAL_MS = 5_000
"""Interval of statuses that show only new figures."""
MODEL_KNOWN_WITHIN_MS = 10_000
"""A start waits this long for its version to be loaded, and for the change of the alias that it is about."""


SHOWN_MAX = 20
"""Models named in a log event."""


class Models(Protocol):
    """The models of a tenant as far as this worker has read them."""

    def newest_alias(self, model_id: str, alias: str) -> Alias | None:
        """The newest revision, also that of a removal; None if the alias was never set."""

    def versions(self, model_id: str) -> Collection[int]:
        """The versions that are deployed."""

    def usable(self, model_id: str) -> Collection[int]:
        """The versions that can answer requests."""

    def paused(self, model_id: str) -> bool:
        """Whether requests to the model wait."""


@dataclass(slots=True)
class _Draft:
    """An output batch being collected."""

    context: LifecycleContext
    partition: RolloutsPartition
    number: int
    output: OutputBatch
    now_ms: int
    changed: dict[str, RolloutStatus] = field(default_factory=dict)
    """To be stored."""

    def take(self, model_id: str, change: Change, answer: Answer | None, compared: Compared) -> None:
        """Adds a change and its status."""
        before = self.partition.get(model_id)
        answers = before.answers if answer is None else [*before.answers, answer][-ANSWERS_MAX:]
        for key, alias in change.records.items():
            value = None if alias is None else encode_alias(alias, limits=self.context.limits)
            self.output.add(self.context.topics.name("models"), 0, (str(key).encode(), value, []))
        status = RolloutStatus(rollout=change.rollout, answers=answers)
        if change.rollout is not None:
            self.changed[model_id] = status
            self.partition.put(model_id, status)
        self.publish(model_id, status, compared)

    def publish(self, model_id: str, status: RolloutStatus, compared: Compared) -> None:
        """Adds a status with its figures."""
        measures = [] if status.rollout is None else measures_of(status.rollout, compared)
        shown = replace(status, at=self.now_ms, requests=compared.new.requests, measures=measures)
        value = encode_rollout_status(shown, JSON)
        self.output.tally.bytes_out += len(value)
        self.output.add(
            self.context.topics.name("rollout-status"), self.number, (model_id.encode(), value, [JSON.header])
        )
        self.partition.published_ms[model_id] = self.now_ms

    def finish(self) -> OutputBatch:
        if self.changed:
            self.output.changes[self.partition.table] = [
                (model_id.encode(), encode_rollout_status(status)) for model_id, status in self.changed.items()
            ]
        return self.output


class RolloutProcessor(LifecycleProcessor):
    """The processor of `rollouts`."""

    fault_event = "rollout_record_fault"

    def __init__(
        self,
        context: LifecycleContext,
        owned: RolloutStore,
        windows: Windows,
        models: Models,
        measured: Collection[Metric],
    ) -> None:
        super().__init__(context, "rollouts")
        self.owned, self._models, self._measured = owned, models, measured
        self._measuring = Measuring(windows)

    def records_max(self) -> int:
        return RECORDS_MAX

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        yield from super().outputs(number)
        yield TopicPartition(self._context.topics.name("rollout-status"), number)
        yield TopicPartition(self._context.topics.name("models"), 0)

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        parts = [(tp, self._known_by_now(records)) for tp, records in work]
        return [[self._output(tp, records)] if records else [] for tp, records in parts]

    def _known_by_now(self, records: Records) -> Records:
        """The leading records, up to one about a version or a change of an alias that may not have been read yet."""
        young_ms = self._context.now_ms() - MODEL_KNOWN_WITHIN_MS
        for place, record in enumerate(records):
            if record.timestamp > young_ms and self._is_ahead(record):
                return records[:place]
        return records

    def _is_ahead(self, record: Record) -> bool:
        try:
            model_id, message = self._read(record)
        except ModelServingError:
            return False
        if not isinstance(message, StartRollout):
            return False
        alias = self._models.newest_alias(model_id, message.alias)
        revision = 0 if alias is None else alias.revision
        return message.to not in self._models.usable(model_id) or (message.revision or 0) > revision

    def _read(self, record: Record) -> tuple[str, RolloutMessage]:
        if (rejection := getattr(record, "rejection", None)) is not None:
            raise rejection
        limits = self._context.limits
        model_id = parse_rollout_key(record.key)
        return model_id, decode_rollout_message(record.value, parse_headers(record.headers, limits).codec, limits)

    def _output(self, tp: TopicPartition, records: Records) -> OutputBatch:
        now_ms = self._context.now_ms()
        output = self.output_of(records, now_ms)
        draft = _Draft(self._context, self.owned.partitions[tp.partition], tp.partition, output, now_ms)
        self.take_each(output, tp, records, lambda record: self._take(draft, *self._read(record)))
        return draft.finish()

    def _take(self, draft: _Draft, model_id: str, message: RolloutMessage) -> None:
        before = draft.partition.get(model_id)
        if before.answer(message.id) is not None:
            return  # sent again
        terms = Terms(
            self._models.newest_alias(model_id, _alias_name(before, message)),
            self._models.versions(model_id),
            self._models.usable(model_id),
            self._measured,
        )
        change = advance(before.rollout, model_id, message, draft.now_ms, terms)
        rejection = change.rejection
        answer = Answer(message.id)
        if rejection is not None:
            answer = Answer(message.id, rejection.code, rejection.message[:REASON_CHARS_MAX])
            log.warning("rollout_message_refused", tenant=self.tenant, model=model_id, code=answer.code,
                        reason=answer.reason)  # fmt: skip
        self._note(model_id, before, change)
        compared = Compared() if change.rollout is None else self._measuring.compared(change.rollout, draft.now_ms)
        draft.take(model_id, change, answer, compared)

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        """What guards and the clock ask for, and figures that were not shown for a while."""
        partition = self.owned.partitions.get(tp.partition)
        if partition is None or not partition.live:
            return None
        draft = _Draft(self._context, partition, tp.partition, OutputBatch(next_offset, 0, []), now_ms)
        for model_id, status in list(partition.live.items()):
            try:
                self._tick(draft, model_id, status)
            except Exception:  # One rollout must not stop the others.
                log.exception("rollout_fault", tenant=self.tenant, model=model_id)
        output = draft.finish()
        return output if output.by_topic else None

    def _tick(self, draft: _Draft, model_id: str, status: RolloutStatus) -> None:
        rollout = status.rollout
        if rollout is None:
            return
        compared = self._measuring.compared(rollout, draft.now_ms)
        alias = self._models.newest_alias(model_id, rollout.alias)
        change = tick(rollout, draft.now_ms, alias, compared, model_paused=self._models.paused(model_id))
        if change.changed:
            self._note(model_id, status, change)
            draft.take(model_id, change, None, compared)
        elif draft.now_ms - draft.partition.published_ms.get(model_id, 0) >= STATUS_INTERVAL_MS:
            draft.publish(model_id, status, compared)

    def _note(self, model_id: str, before: RolloutStatus, change: Change) -> None:
        rollout = change.rollout
        if rollout is None:
            return
        earlier = before.rollout if before.rollout is not None and before.rollout.id == rollout.id else None
        if rollout.ended and not (earlier is not None and earlier.ended):
            self.owned.ended[rollout.phase] += 1
        known = [] if earlier is None else earlier.events
        for event in rollout.events:
            if event not in known:
                log.info("rollout", tenant=self.tenant, model=model_id, rollout=rollout.id, phase=rollout.phase,
                         what=event.what, revision=event.revision, by=event.by)  # fmt: skip

    async def opened(self, number: int) -> None:
        self._measuring.forget()
        await self.owned.open(number)
        live = [status.rollout.model_id for status in self.owned.live() if status.rollout is not None]
        log.info("rollouts_opened", tenant=self.tenant, models=live[:SHOWN_MAX])

    def closed(self, number: int) -> None:
        self.owned.close(number)

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        """Only acknowledged states remain."""
        self._measuring.forget()
        self.owned.reopen(number)

    def acked(self, number: int, output: OutputBatch) -> None:
        if (partition := self.owned.partitions.get(number)) is not None:
            partition.acked(key.decode() for changes in output.changes.values() for key, _ in changes)


def _alias_name(status: RolloutStatus, message: RolloutMessage) -> str:
    """The alias that a message is about."""
    if isinstance(message, StartRollout):
        return message.alias
    return CHAMPION if status.rollout is None else status.rollout.alias
