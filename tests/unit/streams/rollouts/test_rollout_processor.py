"""The owner of `rollouts`: state, changes of the alias and status are one output batch; nothing is made twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from msgspec.structs import replace

from inferd.schemas.codecs import JSON
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.models import Alias, AliasChangeKey, AliasKey, AliasLog, decode_alias, parse_model_key
from inferd.schemas.monitoring import WindowStats
from inferd.schemas.rollouts import (
    AbortRollout,
    RolloutMessage,
    RolloutStatus,
    StartRollout,
    decode_rollout_status,
    encode_rollout_message,
)
from inferd.streams.faust_app import create_app
from inferd.streams.lane import OutputBatch
from inferd.streams.lifecycle import LifecycleContext, WindowStore
from inferd.streams.rollouts import MEASURED, Measuring, RolloutProcessor, RolloutStore
from inferd.streams.settings import StreamSettings
from inferd.streams.state import make_table
from tests.fixtures.lane import TOPICS

TP = TopicPartition(TOPICS.name("rollouts"), 0)
MODELS, STATUS, LETTERS = (TOPICS.name(stream) for stream in ("models", "rollout-status", "dead-letters"))


@dataclass
class Models:
    """The models as a follower knows them, and the windows."""

    log: AliasLog = field(default_factory=AliasLog)
    numbers: set[int] = field(default_factory=lambda: {3, 4})
    found: list[WindowStats] = field(default_factory=list)

    def newest_alias(self, model_id: str, alias: str) -> Alias | None:
        return self.log.newest if (model_id, alias) == ("churn", "champion") else None

    def versions(self, model_id: str) -> set[int]:
        return self.numbers

    def paused(self, model_id: str) -> bool:
        return False

    def usable(self, model_id: str) -> set[int]:
        return self.numbers

    def windows(self, model_id: str, version: int, since_minute: int) -> Sequence[WindowStats]:
        return [each for each in self.found if each.version == version and each.minute >= since_minute]


class Owner:
    """A processor with its table, and a clock that tests set."""

    def __init__(self, processor: RolloutProcessor, models: Models) -> None:
        self.processor, self.models = processor, models
        self.now_s, self.offset = 1_000_000.0, 0

    @classmethod
    async def make(cls, path: Path) -> Owner:
        settings = StreamSettings(KafkaConnection(), "w1", path, "ns")
        app = create_app(settings)
        tables = [make_table(app, settings, "default", table, None) for table in ("rollouts", "model-windows")]
        for table in tables:
            await table.retain({0})
        owner: Owner
        windows = WindowStore("default", tables[1], 48)
        context = LifecycleContext(TOPICS, windows, tables, "w1", settings.limits, clock=lambda: owner.now_s)
        models = Models()
        models.log.apply(AliasChangeKey.new(AliasKey("churn", "champion")), Alias(version=3, revision=1))
        store = RolloutStore("default", tables[0])
        owner = cls(RolloutProcessor(context, store, models, models, MEASURED), models)
        await owner.processor.opened(0)
        return owner

    def record(self, value: bytes | None, key: bytes = b"churn") -> ConsumerRecord[Any, Any]:
        now_ms = int(self.now_s * 1_000)
        made = ConsumerRecord(*TP, self.offset, now_ms, 0, key, value, None, 5, len(value or b""), ())
        self.offset += 1
        return made

    async def process(self, *records: ConsumerRecord[Any, Any]) -> OutputBatch | None:
        [outputs] = await self.processor.process([(TP, list(records))])
        return outputs[0] if outputs else None

    async def send(self, message: RolloutMessage) -> OutputBatch:
        output = await self.process(self.record(encode_rollout_message(message)))
        assert output is not None
        self.publish(output)
        return output

    def idle(self, seconds: float = 1) -> OutputBatch | None:
        self.now_s += seconds
        return self.processor.idle_output(TP, self.offset, int(self.now_s * 1_000))

    def publish(self, output: OutputBatch) -> None:
        """Commits an output batch: everybody reads it."""
        for table, changes in output.changes.items():
            table.stage(changes)
            table.apply(changes, (table.store.offset or 0) + len(changes))
        for key, alias in changes_of(output):
            self.models.log.apply(key, alias)
        self.processor.acked(0, output)

    def step(self, seconds: float = 1) -> OutputBatch | None:
        if (output := self.idle(seconds)) is not None:
            self.publish(output)
        return output


def changes_of(output: OutputBatch) -> list[tuple[AliasChangeKey, Alias | None]]:
    found = []
    for key, value, _ in output.by_topic.get((MODELS, 0), []):
        parsed = parse_model_key(key)
        assert isinstance(parsed, AliasChangeKey)
        found.append((parsed, None if value is None else decode_alias(value)))
    return found


def statuses_of(output: OutputBatch) -> list[RolloutStatus]:
    return [decode_rollout_status(value, JSON) for _, value, _ in output.by_topic.get((STATUS, 0), [])]


def start(number: int = 1, **fields: Any) -> StartRollout:
    given: dict[str, Any] = {"steps": ["10%:10s:50", "100%"], "guards": ["errors < 10%"], "guard_requests_min": 20}
    return StartRollout(id=f"{number:032x}", to=4, **(given | fields))


def window(version: int, revision: int | None, minute: int, requests: int, errors: int = 0) -> WindowStats:
    failed = {"internal": errors} if errors else {}
    return WindowStats(model_id="churn", version=version, alias_revision=revision, minute=minute, requests=requests,
                       errors=failed)  # fmt: skip


@pytest.fixture
async def owner(tmp_path: Path) -> Owner:
    return await Owner.make(tmp_path)


async def test_a_start_is_stored_with_its_change_of_the_alias_and_its_status(owner: Owner) -> None:
    output = await owner.send(start())
    [(_, alias)] = changes_of(output)
    assert alias is not None
    assert (alias.revision, alias.changed_by) == (2, f"rollout {1:032x}")
    [status] = statuses_of(output)
    assert status.rollout is not None
    assert (status.rollout.phase, status.answers[0].code) == ("running", None)
    [[(key, value)]] = output.changes.values()
    assert key == b"churn"
    assert decode_rollout_status(value).rollout == status.rollout
    again = await owner.process(owner.record(encode_rollout_message(start())))
    assert again is not None
    assert (again.by_topic, again.changes) == ({}, {}), "a message that is sent again changes nothing"


async def test_a_breach_is_one_batch_and_the_same_again_if_it_is_not_committed(owner: Owner) -> None:
    await owner.send(start())
    owner.step()
    owner.models.found.append(window(4, 2, int(owner.now_s // 60), 30, errors=10))
    first = owner.idle()
    assert first is not None
    owner.processor.rewound(0, [first])
    second = owner.idle(0)
    assert second is not None
    assert changes_of(first) == changes_of(second)
    [(_, alias)] = changes_of(second)
    assert alias is not None
    assert (alias.version, alias.revision, alias.restores) == (3, 3, 1)
    [status] = statuses_of(second)
    assert status.rollout is not None
    assert status.rollout.breach is not None
    owner.publish(second)
    owner.models.found.clear()
    settled = owner.step()
    assert settled is not None
    assert [alias for _, alias in changes_of(settled)] == [None], "the change before it is deleted"
    assert [owner.step(10) for _ in range(3)] == [None] * 3
    await owner.processor.opened(0)
    assert owner.step() is None
    assert owner.models.log.newest == alias


async def test_only_requests_by_the_running_change_of_the_alias_count(owner: Owner) -> None:
    output = await owner.send(start())
    [status] = statuses_of(output)
    assert status.rollout is not None
    minute = int(owner.now_s // 60)
    owner.models.found += [
        window(4, None, minute, 1_000, errors=1_000), window(4, 1, minute, 1_000, errors=1_000),
        window(4, 2, minute - 10, 1_000, errors=1_000), window(4, 2, minute, 7), window(4, 2, minute + 1, 4, errors=1),
        window(3, 2, minute, 90),
    ]  # fmt: skip
    compared = Measuring(owner.models).compared(status.rollout, int(owner.now_s * 1_000))
    assert (compared.new.requests, compared.new.values["errors"], compared.champion.requests) == (11, 1 / 11, 90)


async def test_requests_that_name_another_alias_do_not_count(owner: Owner) -> None:
    [status] = statuses_of(await owner.send(start()))
    assert status.rollout is not None
    minute = int(owner.now_s // 60)
    owner.models.found = [
        msgspec.structs.replace(window(4, 2, minute, requests), alias=alias)
        for alias, requests in (("champion", 30), ("eu", 500), (None, 7))
    ]
    compared = Measuring(owner.models).compared(status.rollout, int(owner.now_s * 1_000))
    assert compared.new.requests == 37, "workers of earlier releases name no alias"


async def test_old_windows_are_added_once(owner: Owner) -> None:
    output = await owner.send(start())
    rollout = statuses_of(output)[0].rollout
    assert rollout is not None
    minute, total = int(owner.now_s // 60), 0
    measuring = Measuring(owner.models)
    for passed in range(12):
        owner.models.found.append(window(4, 2, minute + passed, requests=passed + 1))
        owner.models.found += [window(4, 2, minute + passed - 1, requests=1)] if passed else []
        total += passed + 1 + (passed > 0)
        now_ms = (minute + passed) * 60_000 + 1
        assert measuring.compared(rollout, now_ms).new.requests == total
        assert measuring.compared(rollout, now_ms).new.requests == total
    owner.models.found = [each for each in owner.models.found if each.minute >= minute + 11 - 5]
    assert measuring.compared(rollout, now_ms).new.requests == total, "older ones are remembered"
    measuring.forget()
    assert measuring.compared(rollout, now_ms).new.requests < total


async def test_labels_of_old_windows_count_if_a_guard_judges_them(owner: Owner) -> None:
    output = await owner.send(start())
    rollout = statuses_of(output)[0].rollout
    assert rollout is not None
    rollout = replace(rollout, guards=["auc > 0.5"])
    minute, measuring = int(owner.now_s // 60), Measuring(owner.models)
    owner.models.found = [window(4, 2, minute, requests=5)]
    later = [(minute + passed) * 60_000 for passed in (20, 20.9, 21)]
    assert measuring.compared(rollout, round(later[0])).new.requests == 5
    owner.models.found = [window(4, 2, minute, requests=6)]
    assert [measuring.compared(rollout, round(now)).new.requests for now in later[1:]] == [5, 6]


async def test_figures_are_shown_every_few_seconds(owner: Owner) -> None:
    await owner.send(start())
    owner.step()
    assert [owner.step() is not None for _ in range(5)] == [False] * 4 + [True]


async def test_a_start_waits_for_the_deploy_and_the_alias_that_it_is_about(owner: Owner) -> None:
    owner.models.numbers = {3}
    record = owner.record(encode_rollout_message(start()))
    assert await owner.process(record) is None
    owner.models.numbers = {3, 4}
    assert await owner.process(record) is not None
    ahead = owner.record(encode_rollout_message(start(2, revision=9)), b"churn")
    assert await owner.process(ahead) is None
    owner.now_s += 11
    output = await owner.process(ahead)
    assert output is not None
    [status] = statuses_of(output)
    assert status.answers[-1].code == "rollout_conflict"


async def test_a_refused_message_of_a_model_without_rollout_is_answered_and_not_stored(owner: Owner) -> None:
    output = await owner.send(AbortRollout(id=f"{9:032x}"))
    [status] = statuses_of(output)
    assert (status.rollout, status.answers[0].code, output.changes) == (None, "rollout_not_found", {})


async def test_garbage_goes_to_dead_letters_and_stops_nothing(owner: Owner) -> None:
    values = [None, b"", b"\xc1", JSON.encode({"type": "start"})]
    records = [owner.record(value) for value in values] + [owner.record(encode_rollout_message(start()), b"a@b")]
    output = await owner.process(*records, owner.record(encode_rollout_message(start())))
    assert output is not None
    assert len(output.by_topic[(LETTERS, 0)]) == 5
    assert len(statuses_of(output)) == 1
    assert output.next_offset == 6
