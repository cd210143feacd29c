"""Rollouts on a real broker with two workers.

In most tests, what versions scored is produced by the test, so that it is exact; in one, it is live traffic.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import lightgbm
import msgpack
import numpy as np
import pytest

from inferd import Client
from inferd.errors import AliasChangedError
from inferd.schemas.codecs import JSON
from inferd.schemas.errors import VersionNotFoundError
from inferd.schemas.models import (
    Alias,
    AliasChangeKey,
    AliasKey,
    AliasLog,
    AliasTarget,
    SplitShare,
    decode_alias,
    encode_alias,
    parse_model_key,
)
from inferd.schemas.monitoring import WindowStats, encode_window
from inferd.schemas.rollouts import (
    GuardUnavailableError,
    RolloutConflictError,
    RolloutNotFoundError,
    RolloutStatus,
    decode_rollout_status,
)
from inferd.streams.inference import manifest_of
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel, Worker

KEY = AliasKey("churn", "champion")
GUARDS = ["errors < 5%", "p99 < 2x"]
WITHIN_S = 60.0
PER_SECOND = 200
ROLLED_BACK_WITHIN_S = 5.0
pytestmark = pytest.mark.timeout(300)


@dataclass
class Place:
    """Two workers, a model with versions 1 to 3, and an alias that points at 1."""

    cluster: Cluster
    start_worker: StartWorker
    client: Client
    workers: list[Worker] = field(default_factory=list)

    def scored(self, version: int, revision: int, requests: int, errors: int = 0, ms_bin: int = 10) -> None:
        """Says that workers scored requests with a version, by a revision of the alias."""
        window = WindowStats(
            model_id="churn", version=version, minute=int(time.time() // 60), variant="canary", alias_revision=revision,
            requests=requests, rows=requests, errors={"internal": errors} if errors else {}, latency={ms_bin: requests},
        )  # fmt: skip
        producer = self.cluster.producer()
        producer.produce(self.cluster.topics.name("model-stats"), encode_window(window), b"churn", 0)
        assert producer.flush(30) == 0

    async def until(self, holds: Callable[[RolloutStatus], bool], what: str) -> RolloutStatus:
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                status = await self.client.rollouts.status("churn")
            except RolloutNotFoundError:
                status = RolloutStatus()
            if status.rollout is not None and holds(status):
                return status
            assert time.monotonic() < deadline, f"{what}: {status}"

    async def until_step(self, step: int) -> int:
        """Waits until workers can know of a step; returns the revision of the alias in it."""

        def running(status: RolloutStatus) -> bool:
            rollout = status.rollout
            return rollout is not None and rollout.step == step and rollout.move is not None and rollout.move.seen

        status = await self.until(running, f"step {step}")
        assert status.rollout is not None
        assert status.rollout.move is not None
        return status.rollout.move.revision

    def owner(self) -> Worker:
        """The worker that owns the rollouts."""
        opened = {
            worker: [json.loads(line)["timestamp"] for line in worker.text().splitlines() if "rollouts_opened" in line]
            for worker in self.workers
        }
        return max(self.workers, key=lambda worker: max(opened[worker], default=""))

    def another_worker(self) -> Worker:
        self.workers.append(worker := self.start_worker(self.cluster))
        return worker

    async def alias(self) -> Alias:
        newest = (await self.client.models()).newest_revision(KEY)
        assert newest is not None
        return newest

    def moves(self) -> list[tuple[int, str]]:
        """Every change that rollouts have ever written, in the order of the log: revision and target."""
        found = []
        for record in self.cluster.read_all("models"):
            key = parse_model_key(record.key())
            if isinstance(key, AliasChangeKey) and record.value():
                alias = decode_alias(record.value())
                if (alias.changed_by or "").startswith("rollout "):
                    found.append((alias.revision, repr((alias.version, alias.split))))
        return found


@pytest.fixture
async def place(cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> AsyncIterator[Place]:
    content = model.booster.model_to_string().encode()
    async with Client(cluster.bootstrap, namespace=cluster.namespace) as client:
        for version in (1, 2, 3):
            await client.deploy_model(content, manifest_of(content, "churn", version))
        await client.set_alias("churn", "champion", 1)
        made = Place(cluster, start_worker, client)
        for _ in range(2):
            await asyncio.to_thread(made.another_worker().wait_ready)
        yield made


async def test_a_good_version_is_promoted(place: Place) -> None:
    started = await place.client.rollouts.start(
        "churn", to=2, steps="10%:1s,50%:1s:200,100%", guards=GUARDS, guard_requests_min=50, changed_by="ana"
    )
    assert started.rollout is not None
    for step in (0, 1):
        revision = await place.until_step(step)
        place.scored(1, revision, 1_000, errors=1)
        place.scored(2, revision, 150)
        if step == 1:
            status = await place.until(lambda status: status.requests == 150, "the figures of the step")
            assert [(measure.guard, measure.value) for measure in status.measures] == [
                ("errors < 5%", 0.0),
                ("p99 < 2x", status.measures[1].value),
            ]
            assert (await place.alias()).split is not None
            place.scored(2, revision, 50)
    ended = [status async for status in place.client.rollouts.watch("churn")][-1]
    assert ended.rollout is not None
    assert (ended.rollout.phase, ended.rollout.started_by) == ("promoted", "ana")
    alias = await place.alias()
    assert (alias.version, alias.revision, alias.changed_by) == (2, 4, f"rollout {started.rollout.id}")
    assert place.moves() == [
        (2, repr((None, alias_split(90.0, 10.0)))), (3, repr((None, alias_split(50.0, 50.0)))), (4, repr((2, None)))
    ]  # fmt: skip
    aborted = await place.client.rollouts.abort("churn")
    assert aborted.rollout is not None
    await place.until(lambda status: status.rollout is not None and status.rollout.phase == "aborted", "aborted")
    assert (await place.alias()).version == 1


def alias_split(first: float, second: float) -> list[SplitShare]:
    return [SplitShare(1, first), SplitShare(2, second)]


async def test_a_breach_rolls_back_within_seconds_and_stays_after_its_owner_was_killed(place: Place) -> None:
    await place.client.rollouts.start(
        "churn", to=2, steps="10%:1h,100%", guards=GUARDS, guard_requests_min=50, changed_by="ana"
    )
    revision = await place.until_step(0)
    place.scored(2, revision, 40, errors=40)
    await place.until(lambda status: status.requests == 40, "too few requests for a guard")
    assert (await place.alias()).revision == revision
    place.scored(2, revision, 10)
    shown = time.monotonic()
    while (await place.alias()).version != 1:
        assert time.monotonic() - shown < ROLLED_BACK_WITHIN_S
    print(f"rolled back within {time.monotonic() - shown:.2f} s")
    await asyncio.to_thread(place.owner().kill)
    place.scored(2, revision, 10_000)
    await asyncio.to_thread(place.another_worker().wait_ready)
    with pytest.raises(RolloutConflictError, match="was rolled_back"):
        await place.client.rollouts.promote("churn")
    status = await place.client.rollouts.status("churn")
    assert status.rollout is not None
    assert status.rollout.breach is not None
    assert (status.rollout.phase, status.rollout.breach.value, status.rollout.breach.requests) == (
        "rolled_back",
        0.8,
        50,
    )
    alias = await place.alias()
    assert (alias.version, alias.revision, alias.restores) == (1, revision + 1, 1)
    assert len(place.moves()) == 2


async def test_owners_that_are_killed_at_any_point_move_no_alias_twice(place: Place) -> None:
    """The owner is killed after each change that it published, and a rollout ends as if it had not been."""
    for number, version in enumerate((2, 3)):
        bad = number == 1
        before = (await place.alias()).revision
        starting = asyncio.ensure_future(
            place.client.rollouts.start("churn", to=version, steps="10%:0s:50,50%:0s:50,100%", guards=GUARDS,
                                        guard_requests_min=50, timeout_s=WITHIN_S)
        )  # fmt: skip
        await starting
        for step in (0, 1):
            revision = await place.until_step(step)
            await kill_the_owner(place)
            place.scored(version, revision, 60, errors=60 if bad and step == 1 else 0)
            await place.until(
                lambda status, step=step: (
                    status.rollout is not None  # type: ignore[misc]
                    and (status.rollout.step > step or status.rollout.ended)
                ),
                "the next step",
            )
            await kill_the_owner(place)
        ended = [status async for status in place.client.rollouts.watch("churn")][-1]
        assert ended.rollout is not None
        assert ended.rollout.phase == ("rolled_back" if bad else "promoted")
        await place.until(
            lambda status: status.rollout is not None and status.rollout.move is not None and status.rollout.move.seen,
            "the last move was read",
        )
        alias = await place.alias()
        assert (alias.version, alias.revision) == (2, before + 3)
    moves = place.moves()
    assert [revision for revision, _ in moves] == list(range(2, 8)), "each change was written once"
    log = AliasLog()
    for record in place.cluster.read_all("models"):
        key = parse_model_key(record.key())
        if isinstance(key, AliasChangeKey):
            log.apply(key, decode_alias(record.value()) if record.value() else None)
    assert log.newest is not None
    assert log.newest.revision == 7


async def kill_the_owner(place: Place) -> None:
    owner = place.owner()
    place.workers.remove(owner)
    await asyncio.to_thread(owner.kill)
    await asyncio.to_thread(place.another_worker().wait_ready)


async def test_the_change_of_somebody_else_ends_it_and_is_kept(place: Place) -> None:
    await place.client.rollouts.start("churn", to=2, steps="10%:1h,100%")
    revision = await place.until_step(0)
    await place.client.set_alias("churn", "champion", 3, changed_by="bo")
    status = await place.until(lambda status: status.rollout is not None and status.rollout.ended, "ended")
    assert status.rollout is not None
    assert (status.rollout.phase, status.rollout.superseded_by) == ("superseded", "bo: 3")
    alias = await place.alias()
    assert (alias.version, alias.revision) == (3, revision + 1)


async def test_what_cannot_be_rolled_out_is_refused_and_garbage_stops_nothing(place: Place) -> None:
    client, topic = place.client, place.cluster.topics.name("rollouts")
    producer = place.cluster.producer()
    for key, value in ((b"churn", b"\xc1"), (b"a@b", b"{}"), (None, None), (b"churn", b"")):
        producer.produce(topic, value, key, 0)
    assert producer.flush(30) == 0
    with pytest.raises(VersionNotFoundError, match="no version 9"):
        await client.rollouts.start("churn", to=9, steps="100%")
    with pytest.raises(VersionNotFoundError, match="has no alias 'next'"):
        await client.rollouts.start("churn", to=2, steps="100%", alias="next")
    with pytest.raises(GuardUnavailableError, match="needs INFERD_LABELS_WINDOW_S"):
        await client.rollouts.start("churn", to=2, steps="100%", guards=["auc > 0.5"])
    with pytest.raises(AliasChangedError, match="has revision 1, not 0"):
        await client.rollouts.start("churn", to=2, steps="100%", revision=0)
    with pytest.raises(RolloutNotFoundError):
        await client.rollouts.pause("churn")
    await client.set_alias("churn", "champion", AliasTarget(version=2))
    paused = await client.rollouts.start("churn", to=1, steps="10%:1h,100%", requests_min=0)
    assert paused.rollout is not None
    with pytest.raises(RolloutConflictError, match="is running"):
        await client.rollouts.start("churn", to=3, steps="100%")
    assert (await client.rollouts.pause("churn")).rollout.phase == "paused"  # type: ignore[union-attr]
    assert (await client.rollouts.resume("churn")).rollout.phase == "running"  # type: ignore[union-attr]
    assert list(await client.rollouts.list()) == ["churn"]
    letters = await asyncio.to_thread(place.cluster.read, "dead-letters", lambda got: len(got) >= 4, 30)
    assert len(letters) == 4


async def test_messages_may_be_produced_by_other_programs_in_json(place: Place) -> None:
    message: dict[str, Any] = {"type": "start", "id": uuid4().hex, "to": 2, "steps": ["100%"]}
    producer = place.cluster.producer()
    producer.produce(place.cluster.topics.name("rollouts"), JSON.encode(message), b"churn", 0, headers=[JSON.header])
    assert producer.flush(30) == 0
    await place.until(lambda status: status.rollout is not None and status.rollout.phase == "promoted", "promoted")
    assert (await place.alias()).version == 2
    records = place.cluster.read_all("rollout-status")
    newest = decode_rollout_status(records[-1].value(), JSON)
    assert dict(records[-1].headers())["content-type"] == b"application/json"
    assert newest.rollout is not None
    assert newest.answer(message["id"]) is not None


@pytest.mark.parametrize("commits", [True, False])
async def test_a_client_reads_its_change_back_behind_an_open_transaction(place: Place, commits: bool) -> None:
    """Nobody reads past an open transaction of a rollout: a client must not take that for a lost change."""
    producer = place.cluster.producer(**{"transactional.id": f"{place.cluster.namespace}-open"})
    producer.init_transactions(30)
    producer.begin_transaction()
    change = Alias(version=3, revision=2, changed_by="rollout x")
    key = str(AliasChangeKey.new(AliasKey("churn", "other"))).encode()
    producer.produce(place.cluster.topics.name("models"), encode_alias(change), key)
    producer.flush(30)
    setting = asyncio.ensure_future(place.client.set_alias("churn", "champion", 2))
    done, _ = await asyncio.wait([setting], timeout=1)
    assert not done
    producer.commit_transaction(30) if commits else producer.abort_transaction(30)
    assert (await setting).version == 2
    aliases = (await place.client.models()).aliases_of("churn")
    others = {"other": 3} if commits else {}
    assert {name: alias.version for name, alias in aliases.items()} == {"champion": 2, **others}


async def test_any_worker_starts_and_steers_them_over_http(place: Place) -> None:
    async with aiohttp.ClientSession(headers={"inferd-request": "1"}) as http:

        async def ask(worker: Worker, method: str, path: str, body: object = None) -> tuple[int, Any]:
            async with http.request(method, worker.url + path, json=body) as answer:
                return answer.status, await answer.json()

        first, second = place.workers
        body = {"to": 2, "steps": ["10%:1h", "100%"], "guards": ["errors < 1%"]}
        for worker, status in ((first, 202), (second, 409)):
            found, answer = await ask(worker, "POST", "/rollouts/churn?changed_by=ana", body)
            assert found == status, answer
        assert (await ask(second, "POST", "/rollouts/churn/pause"))[1]["rollout"]["phase"] == "paused"
        shown = await ask(first, "GET", "/rollouts/churn")
        assert (shown[0], shown[1]["rollout"]["phase"], shown[1]["rollout"]["started_by"]) == (200, "paused", "ana")
        assert (await ask(first, "POST", "/rollouts/churn/abort"))[0] == 202
        await place.until(is_settled, "the alias is back")
        found, answer = await ask(second, "POST", "/rollouts/churn", body | {"guards": ["auc > 0.5"]})
        assert (found, answer["error"]["code"]) == (422, "guard_unavailable")


def is_settled(status: RolloutStatus) -> bool:
    """Whether a rollout has ended, and its last change of the alias was read."""
    rollout = status.rollout
    return rollout is not None and rollout.ended and rollout.move is not None and rollout.move.seen


async def test_a_version_that_fails_requests_loses_live_traffic(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    """What workers count leads back: few keys meet the bad version, and a good one is promoted under the same load."""
    rows = np.random.default_rng(3).normal(size=(200, model.n_features + 1))
    parameters = {"objective": "regression", "num_leaves": 4, "verbose": -1, "num_threads": 1}
    wider = lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0]), 3).model_to_string().encode()
    async with Client(cluster.bootstrap, namespace=cluster.namespace) as client:
        await client.deploy_model(model.data, model.manifest())
        await client.deploy_model(wider, manifest_of(wider, "demo", 2))
        await client.deploy_model(model.data, model.manifest(version=3))
        await client.set_alias("demo", "champion", 1)
        for _ in range(2):
            await asyncio.to_thread(start_worker(cluster).wait_ready)
        load = Load(cluster, model)
        load.start(PER_SECOND)
        started = time.monotonic()
        await client.rollouts.start("demo", to=2, steps="10%:1h,100%", guards=GUARDS, guard_requests_min=30)
        bad = [status async for status in client.rollouts.watch("demo")][-1]
        seconds = time.monotonic() - started
        assert bad.rollout is not None
        assert bad.rollout.breach is not None
        assert (bad.rollout.phase, bad.rollout.breach.guard, bad.rollout.breach.value) == (
            "rolled_back",
            GUARDS[0],
            1.0,
        )
        while not is_settled(await client.rollouts.status("demo")):
            assert time.monotonic() - started < WITHIN_S
        await client.rollouts.start(
            "demo", to=3, steps="20%:1s:50,100%:1s:50", guards=["errors < 5%"], guard_requests_min=30
        )
        good = [status async for status in client.rollouts.watch("demo")][-1]
        await asyncio.to_thread(load.stop)
    assert good.rollout is not None
    assert good.rollout.phase == "promoted"
    results = [msgpack.unpackb(r.value()) for r in cluster.read("results", lambda got: len(got) >= load.n, 60)]
    failed = [result for result in results if "error" in result]
    assert {result["error"]["code"] for result in failed} == {"schema_mismatch"}
    print(f"{len(failed)} of {load.n} requests met the bad version, rolled back within {seconds:.1f} s of the start")
    assert len({result["id"] for result in results}) == load.n
    assert len(failed) < PER_SECOND * 0.1 * 10, "10 % of the requests for less than 10 s"


async def test_a_version_that_disagrees_is_stopped_in_its_shadow_step(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    """No request is ever answered by it; one that agrees goes on."""
    rows = np.random.default_rng(3).normal(size=(500, model.n_features))
    parameters = {"objective": "binary", "num_leaves": 4, "verbose": -1, "num_threads": 1}
    other = lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0] < 0), 30).model_to_string().encode()
    steps = "shadow:2s:50,100%"
    async with Client(cluster.bootstrap, namespace=cluster.namespace) as client:
        await client.deploy_model(model.data, model.manifest())
        await client.deploy_model(other, manifest_of(other, "demo", 2))
        await client.deploy_model(model.data, model.manifest(version=3))
        await client.set_alias("demo", "champion", 1)
        for _ in range(2):
            await asyncio.to_thread(start_worker(cluster).wait_ready)
        load = Load(cluster, model)
        load.start(PER_SECOND)
        guards = ["disagreement < 20%", "errors < 5%"]
        await client.rollouts.start("demo", to=2, steps=steps, guards=guards, guard_requests_min=30)
        bad = [status async for status in client.rollouts.watch("demo")][-1]
        assert bad.rollout is not None
        assert bad.rollout.breach is not None
        assert (bad.rollout.phase, bad.rollout.breach.guard) == ("rolled_back", guards[0])
        started = time.monotonic()
        while not is_settled(await client.rollouts.status("demo")):
            assert time.monotonic() - started < WITHIN_S
        await client.rollouts.start("demo", to=3, steps=steps, guards=guards, guard_requests_min=30)
        good = [status async for status in client.rollouts.watch("demo")][-1]
        await asyncio.to_thread(load.stop)
    assert good.rollout is not None
    assert good.rollout.phase == "promoted"
    results = [msgpack.unpackb(r.value()) for r in cluster.read("results", lambda got: len(got) >= load.n, 60)]
    assert {result["version"] for result in results} <= {1, 3}
