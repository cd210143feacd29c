"""Concurrent changes of models by clients that interleave at every step, die, and pause, on a log that may be compacted
at any time."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from inferd.models.changes import ModelChanges, Records
from inferd.models.model_list import GRACE_MS, ModelList
from inferd.schemas.errors import ModelNotFoundError, ServerError, VersionNotFoundError
from inferd.schemas.limits import Limits
from inferd.schemas.models import ArtifactKey, Feature, Manifest, VersionExistsError, VersionKey, decode_manifest
from inferd.schemas.requests import ModelReference
from inferd.schemas.topics import Stream

CONTENTS, VERSIONS, CLIENTS = (b"a", b"bb", b"ccc"), (1, 2), 4
LIMITS = Limits(artifact_part_bytes_max=2)
TIMEOUT_S = 30.0


def manifest(content: bytes, version: int = 1, created_at: str | None = None) -> Manifest:
    sha256 = hashlib.sha256(content).hexdigest()
    return Manifest("m", version, "lightgbm", sha256, len(content), [Feature("x")], created_at=created_at)


@dataclass
class Step:
    """A point where other clients may run: before a record is written (if there is one), or while reading."""

    stream: Stream | None = None
    key: object = None
    value: bytes | None = None

    def __await__(self) -> Generator[Step, None, None]:
        yield self

    @property
    def follows_a_check_of_time(self) -> bool:
        manifest_after_parts = isinstance(self.key, VersionKey) and self.value is not None
        return manifest_after_parts or (isinstance(self.key, ArtifactKey) and self.value is None)


@dataclass
class Log:
    """One compacted topic of one partition."""

    records: list[tuple[int, str, bytes | None, int]] = field(default_factory=list)
    end: int = 0

    def append(self, key: str, value: bytes | None, at_ms: int) -> None:
        self.records.append((self.end, key, value, at_ms))
        self.end += 1

    def compact(self, *, tombstones: bool) -> None:
        last = {key: offset for offset, key, _, _ in self.records}
        self.records = [r for r in self.records if last[r[1]] == r[0] and not (tombstones and r[2] is None)]

    def live(self) -> dict[str, bytes]:
        last = {key: value for _, key, value, _ in self.records}
        return {key: value for key, value in last.items() if value is not None}


@dataclass
class Broker:
    """The topics of a tenant as its clients see them; a read takes at least two steps."""

    logs: dict[Stream, Log] = field(default_factory=lambda: defaultdict(Log))
    now_s: float = 1_000_000.0
    written: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Every version that was ever written."""

    async def read(self, timeout_s: float) -> ModelList:
        log, models, position = self.logs["models"], ModelList(limits=LIMITS), 0
        while position < (end := log.end):
            for fetched in (position + (end - position) // 2, end):  # others may run in between
                for offset, key, value, at_ms in log.records:
                    if position <= offset < fetched:
                        models.apply(key.encode(), value, written_ms=at_ms)
                position = fetched
                await Step()
        return models

    async def write(self, stream: Stream, records: Records) -> None:
        for key, value in records.items():
            await Step(stream, key, value)
            self.logs[stream].append(str(key), value, int(self.now_s * 1_000))
            if isinstance(key, VersionKey) and value is not None:
                self.written[str(key)].add(value)
        await Step()

    def missing(self) -> set[str]:
        """Missing parts of live versions."""
        live = self.logs["models"].live()
        versions = [decode_manifest(live[key]) for key in self.written if key in live]
        return {part for version in versions for part in parts(version)} - self.logs["model-artifacts"].live().keys()

    def needless(self) -> set[str]:
        """Parts that no version needs."""
        live = self.logs["models"].live()
        versions = [decode_manifest(live[key]) for key in self.written if key in live]
        return self.logs["model-artifacts"].live().keys() - {part for version in versions for part in parts(version)}


def parts(version: Manifest) -> list[str]:
    return [str(ArtifactKey(version.sha256, part)) for part in range(-(-version.size // 2))]


@dataclass
class Change:
    """A client in the middle of a deploy or a removal (without content)."""

    broker: Broker
    content: bytes | None
    version: int
    pending: Step = field(default_factory=Step)
    has_paused: bool = False
    coroutine: Coroutine[Step, None, Any] = field(init=False)

    def __post_init__(self) -> None:
        client = ModelChanges(self.broker, LIMITS, lambda: self.broker.now_s)
        if self.content is None:
            reference = ModelReference("m", version=self.version)
            self.coroutine = client.remove(reference, None, TIMEOUT_S, everything=False)
        else:
            wanted = manifest(self.content, self.version, created_at=f"{self.broker.now_s}")
            self.coroutine = client.deploy(self.content, wanted, None, TIMEOUT_S)

    def advance(self) -> bool:
        """Runs the next step; returns whether it was the last."""
        try:
            self.pending = self.coroutine.send(None)
        except StopIteration as end:
            self.check_success(end.value)
        except VersionExistsError:
            self.check_rejection()
        except (ModelNotFoundError, VersionNotFoundError, ServerError):
            pass
        else:
            return False
        return True

    def check_success(self, outcome: object) -> None:
        if isinstance(outcome, Manifest):
            assert self.contents() == {outcome.sha256} == {manifest(self.content or b"").sha256}

    def check_rejection(self) -> None:
        models = ModelList(limits=LIMITS)
        for _, key, value, _ in self.broker.logs["models"].records:
            models.apply(key.encode(), value)
        content = models.content(VersionKey("m", self.version))
        assert content is not None
        assert content.sha256 != manifest(self.content or b"").sha256

    def contents(self) -> set[str]:
        return {decode_manifest(value).sha256 for value in self.broker.written[f"m/{self.version}"]}

    def die(self) -> None:
        """Stops the client permanently; one that paused for a day checks the time first."""
        if self.has_paused:
            self.finish()
        self.coroutine.close()

    def finish(self) -> None:
        while not self.advance():
            self.broker.now_s += 1


actions = st.tuples(
    st.integers(0, CLIENTS - 1),
    st.one_of(st.none(), st.sampled_from(CONTENTS)),
    st.sampled_from(VERSIONS),
    st.sampled_from(("step",) * 6 + ("steps",) * 3 + ("die", "compact", "compact tombstones", "a day passes")),
)


def check(broker: Broker) -> None:
    assert {key for key, contents in broker.written.items() if len(contents) > 1} == set(), "two manifests"
    assert broker.missing() == set()


@given(st.lists(actions, max_size=100))
def test_a_version_has_one_content_and_its_artifact_under_any_interleaving(
    history: list[tuple[int, bytes | None, int, str]],
) -> None:
    broker, clients = Broker(), dict[int, Change]()
    with patch("inferd.models.changes.asyncio.sleep", lambda _: Step()):
        for client, content, version, action in history:
            if action.startswith("compact"):
                for log in broker.logs.values():
                    log.compact(tombstones="tombstones" in action)
            elif action == "a day passes":
                pass_a_day(broker, clients)
            elif action == "die":
                if change := clients.pop(client, None):
                    change.die()
            else:
                step(broker, clients, client, content, version, 9 if action == "steps" else 1)
            check(broker)
        for change in clients.values():
            change.finish()
            check(broker)
        assert collected(broker) == set(), "parts that no version needs are collected in the end"
        check(broker)


def step(
    broker: Broker, clients: dict[int, Change], client: int, content: bytes | None, version: int, count: int
) -> None:
    if client not in clients:
        clients[client] = Change(broker, content, version)
    for _ in range(count):
        if clients[client].advance():
            del clients[client]
            return


def pass_a_day(broker: Broker, clients: dict[int, Change]) -> None:
    """Clients pause for a day anywhere except between a check of the time and the next record."""
    for client, change in list(clients.items()):
        while client in clients and change.pending.follows_a_check_of_time:
            if change.advance():
                del clients[client]
    for change in clients.values():
        change.has_paused = True
    broker.now_s += GRACE_MS / 1_000 + 1


def collected(broker: Broker) -> set[str]:
    """Artifacts that no version needs and that remain after a client's change after the grace period."""
    broker.now_s += GRACE_MS / 1_000 + 1
    Change(broker, b"another", 9).finish()
    return broker.needless()


def test_a_removed_version_may_be_deployed_again_unchanged_only() -> None:
    broker = Broker()
    with patch("inferd.models.changes.asyncio.sleep", lambda _: Step()):
        Change(broker, b"a", 1).finish()
        Change(broker, None, 1).finish()
        broker.now_s += GRACE_MS / 1_000 + 1
        Change(broker, b"bb", 2).finish()
        for log in broker.logs.values():
            log.compact(tombstones=True)
        assert parts(manifest(b"a"))[0] not in broker.logs["model-artifacts"].live()
        refused = Change(broker, b"ccc", 1)
        refused.finish()
        assert refused.contents() == {manifest(b"a").sha256}
        Change(broker, b"a", 1).finish()
        assert "m/1" in broker.logs["models"].live()
        check(broker)
