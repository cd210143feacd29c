"""Rollouts of bad versions while workers die: few requests meet them, and no alias moves twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256

import lightgbm
import numpy as np
from msgspec.structs import replace

from inferd import SyncClient
from inferd.schemas.models import AliasChangeKey, AliasTarget, decode_alias, parse_model_key, target_of
from inferd.schemas.monitoring import ROWS_MIN
from inferd.schemas.rollouts import Rollout
from inferd.streams.inference import manifest_of
from tests.chaos.bad_versions import LABEL, SLOW_S, Misbehaviour
from tests.chaos.faults import fault
from tests.chaos.fleet import freeze, status, thaw
from tests.chaos.kinds import N_FEATURES, ROLLED, RolledRows
from tests.chaos.system import System
from tests.chaos.worker_faults import EXIT_ZOMBIE, TAKEN_WITHIN_S
from tests.fixtures.workers import Cluster, Worker, until

ANSWERED_WITHIN_S, ENDS_WITHIN_S = 60.0, 120.0
ROLLED_BACK_WITHIN_S = 90.0
"""From the first request that met a bad version, with a takeover, restarts, and perhaps an absence of the broker."""
GUARD_REQUESTS_MIN = 20
SHARE_MAX = 0.75
"""Of the requests to the model since the start: in the step it is half of them."""
MET, SECONDS = "requests that met a bad version", "seconds from the first of them to the rollback, at most"
SHARE = "percent of a rollout's requests that met a bad version, at most"


Disturb = Callable[[System, random.Random, Cluster], None]


@fault("rollouts", recovers_within_s=90.0)
def bad_rollout(system: System, rng: random.Random) -> None:
    """A version that fails its requests is rolled out; a worker is killed meanwhile, and all of them afterwards."""
    _roll_out(system, rng, _wider(), "errors < 5%", _kill_one)


@fault("rollouts", recovers_within_s=90.0)
def raising_rollout(system: System, rng: random.Random) -> None:
    """A version that raises in a worker is rolled out; its owner is frozen beyond its session, and continued."""
    _roll_out(system, rng, _other(), "errors < 5%", _freeze_owner, "raises")


@fault("rollouts", recovers_within_s=90.0)
def slow_rollout(system: System, rng: random.Random) -> None:
    """A version that is slow in a worker is rolled out; a worker is killed meanwhile."""
    _roll_out(system, rng, _other(), f"p50 < {SLOW_S * 500:.0f}ms", _kill_one, "slow")


@fault("rollouts", recovers_within_s=90.0)
def drifting_rollout(system: System, rng: random.Random) -> None:
    """A version that predicts far lower probabilities is rolled out; the broker is killed meanwhile."""
    _roll_out(system, rng, _lower(), "psi < 0.5", _kill_broker, rows=ROWS_MIN)


def _roll_out(
    system: System,
    rng: random.Random,
    content: bytes,
    guard: str,
    disturb: Disturb,
    how: Misbehaviour | None = None,
    rows: int = GUARD_REQUESTS_MIN,
) -> None:
    """Rolls a bad version out, which the guard stops whatever `disturb` does meanwhile; kills all workers then. `rows`:
    how many the guard needs of it."""
    kind = rolled_rows(system)
    with _client(system, rng) as (cluster, client):
        kind.bad.add(sha256(content).hexdigest())
        version = _deployed(system, cluster, client, content, how)
        kind.reset()
        client.rollouts.start(
            ROLLED, to=version, steps="50%:1h,100%", guards=[guard], guard_requests_min=GUARD_REQUESTS_MIN,
            timeout_s=ANSWERED_WITHIN_S,
        )  # fmt: skip
        system.run_on(rng.uniform(0, 3))
        disturb(system, rng, cluster)
        rollout = _ended(client)
        _kill(system, range(len(system.fleet.slots)))
        assert rollout.breach is not None, f"rollout of a bad version ended as {rollout.phase}, without a breach"
        per_second = system.experiment.per_second * kind.share / len(system.clusters) / 2
        _report(system, kind, rollout.breach.at / 1_000, ROLLED_BACK_WITHIN_S + rows / per_second)
        _check_end(system, cluster, client, rollout, "rolled_back")


def _report(system: System, kind: RolledRows, breached_s: float, within_s: float) -> None:
    """Counts who met the bad version, and for how long."""
    seconds = breached_s - (kind.first_met_s or breached_s)
    system.count(MET, kind.met)
    for name, found in ((SECONDS, round(seconds)), (SHARE, round(100 * kind.met / max(1, kind.answered)))):
        system.totals[name] = max(system.totals.get(name, 0), found)
    assert seconds < within_s, f"rollout was rolled back {seconds:.0f} s after the first failed request"
    assert kind.met <= SHARE_MAX * kind.answered, f"rollout: {kind.met} of {kind.answered} requests met a bad version"


def _kill_one(system: System, rng: random.Random, _cluster: Cluster) -> None:
    _kill(system, [rng.randrange(len(system.fleet.slots))])


def _kill_broker(system: System, rng: random.Random, _cluster: Cluster) -> None:
    with system.broker_absent(kill=True):
        system.run_on(rng.uniform(0, 2))


def _freeze_owner(system: System, rng: random.Random, cluster: Cluster) -> None:
    """The owner of the rollouts is frozen until another worker owns them, and then continues."""
    topic = cluster.topics.name("rollouts")

    def owns(worker: Worker) -> bool:
        return any(partition["topic"] == topic for partition in status(worker).get("partitions", ()))

    slot = until(lambda: next((n + 1 for n, w in enumerate(system.fleet.slots) if owns(w)), 0), 60, "an owner") - 1
    worker = system.fleet.slots[slot]
    freeze(worker)
    try:
        system.run_on(system.fleet.session_timeout_s + rng.uniform(1.5, 3.5))
        others = [each for each in system.fleet.slots if each is not worker]
        until(lambda: any(map(owns, others)), TAKEN_WITHIN_S, "another owner")
    finally:
        thaw(worker)
        system.count("zombies")
        system.fleet.ended(worker, "SIGCONT of a zombie", EXIT_ZOMBIE)
        system.fleet.restart(slot)


@fault("rollouts", recovers_within_s=90.0)
def disagreeing_rollout(system: System, rng: random.Random) -> None:
    """A version that predicts something else is stopped in its shadow step, and answers nothing."""
    with _client(system, rng) as (cluster, client):
        version = _deployed(system, cluster, client, _other())
        client.rollouts.start(
            ROLLED, to=version, steps="shadow:1h,100%", guards=["disagreement < 20%"], guard_requests_min=20,
            timeout_s=ANSWERED_WITHIN_S,
        )  # fmt: skip
        system.run_on(rng.uniform(0, 3))
        _kill(system, [rng.randrange(len(system.fleet.slots))])
        _check_end(system, cluster, client, _ended(client), "rolled_back")


@fault("rollouts", recovers_within_s=90.0)
def superseded_rollout(system: System, rng: random.Random) -> None:
    """Somebody else changes the alias of a running rollout: their change stays, also if the rollout is aborted."""
    with _client(system, rng) as (cluster, client):
        version = _deployed(system, cluster, client, system.models[1].data)
        client.rollouts.start(
            ROLLED, to=version, steps="50%:1h,100%", guards=["errors < 5%"], guard_requests_min=10**6,
            timeout_s=ANSWERED_WITHIN_S,
        )  # fmt: skip
        _until(client, lambda rollout: rollout.move is not None and rollout.move.seen, "was not read")
        theirs = client.set_alias(ROLLED, "champion", version)
        _kill(system, [rng.randrange(len(system.fleet.slots))])
        rollout = _until(client, lambda rollout: rollout.ended, "goes on after somebody else's change of the alias")
        found = client.models().aliases_of(ROLLED)["champion"]
        assert found.revision == theirs.revision, f"rollout has overwritten a change of somebody else: {found}"
        assert rollout.phase == "superseded", f"rollout is {rollout.phase}"
        client.set_alias(ROLLED, "champion", 1)
        _check_moves(cluster, rollout)


def rolled_rows(system: System) -> RolledRows:
    return next(kind for kind in system.kinds if isinstance(kind, RolledRows))


@contextmanager
def _client(system: System, rng: random.Random) -> Iterator[tuple[Cluster, SyncClient]]:
    """A client of a random tenant; the recovery is measured from when it is closed."""
    cluster = rng.choice(system.clusters)
    with SyncClient(cluster.bootstrap, namespace=cluster.namespace, tenant=cluster.topics.tenant) as client:
        if "champion" not in client.models().aliases_of(ROLLED):
            client.set_alias(ROLLED, "champion", 1)
        yield cluster, client
    system.mark()


def _deployed(
    system: System, cluster: Cluster, client: SyncClient, content: bytes, how: Misbehaviour | None = None
) -> int:
    """The number of a new version, which every worker has loaded."""
    version = client.models().next_version(ROLLED)
    manifest = manifest_of(content, ROLLED, version)
    client.deploy_model(content, manifest if how is None else replace(manifest, labels={LABEL: how}))

    def is_ready(worker: Worker) -> bool:
        wanted = (cluster.topics.tenant, ROLLED, version)
        models = status(worker).get("models", ())
        return any(m["state"] == "ready" for m in models if (m["tenant"], m["model_id"], m["version"]) == wanted)

    until(lambda: all(map(is_ready, system.fleet.slots)), ANSWERED_WITHIN_S, f"{ROLLED}:{version} ready everywhere")
    return version


def _kill(system: System, slots: Iterable[int]) -> None:
    with system.fleet.lock:
        for slot in slots:
            system.fleet.kill(system.fleet.slots[slot])
            system.fleet.restart(slot)


def _until(client: SyncClient, holds: Callable[[Rollout], bool], otherwise: str) -> Rollout:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while True:
        rollout = client.rollouts.status(ROLLED).rollout
        assert rollout is not None, "rollout has no status"
        if holds(rollout):
            return rollout
        assert time.monotonic() < deadline, f"rollout {otherwise}: {rollout}"
        time.sleep(0.1)


def _ended(client: SyncClient) -> Rollout:
    return _until(client, lambda rollout: rollout.ended, "did not end")


def _check_end(system: System, cluster: Cluster, client: SyncClient, rollout: Rollout, phase: str) -> None:
    """The alias is what it was before, once, and stays so with new owners."""
    settled = _until(
        client,
        lambda now: now.move is not None and now.move.seen and now.move.target == rollout.base,
        "did not return the alias",
    )
    system.run_on(2)
    for now in (rollout, settled, client.rollouts.status(ROLLED).rollout):
        assert now is not None, "rollout has no status"
        assert (now.id, now.phase) == (rollout.id, phase), f"rollout became {now.phase}, and was {rollout.phase}"
        assert now.breach == rollout.breach, "rollout has forgotten its breach"
    found = client.models().aliases_of(ROLLED)["champion"]
    assert target_of(found) == rollout.base, f"rollout left the alias at {target_of(found)}"
    _check_moves(cluster, rollout)


def _check_moves(cluster: Cluster, rollout: Rollout) -> None:
    """Each change of the alias was written once, in the order of the revisions."""
    moves: list[tuple[int, AliasTarget]] = []
    for record in cluster.read_all("models"):
        key = parse_model_key(record.key())
        if isinstance(key, AliasChangeKey) and record.value():
            alias = decode_alias(record.value())
            if alias.changed_by == f"rollout {rollout.id}":
                moves.append((alias.revision, target_of(alias)))
    first = rollout.base_revision + 1
    assert [revision for revision, _ in moves] == list(range(first, first + len(moves))), f"rollout moved: {moves}"
    assert len({repr(target) for _, target in moves}) == len(moves), f"rollout moved an alias twice: {moves}"


def _wider() -> bytes:
    """A model with one feature more than its requests have: it fails all of them."""
    rows = np.random.default_rng(3).normal(size=(200, N_FEATURES + 1))
    parameters = {"objective": "regression", "num_leaves": 4, "verbose": -1, "num_threads": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0]), 3).model_to_string().encode()


def _other() -> bytes:
    """A model that predicts other classes."""
    rows = np.random.default_rng(3).normal(size=(500, N_FEATURES))
    parameters = {"objective": "binary", "num_leaves": 4, "verbose": -1, "num_threads": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0] < 0), 30).model_to_string().encode()


def _lower() -> bytes:
    """A model whose probabilities are all low."""
    rows = np.random.default_rng(3).normal(size=(2_000, N_FEATURES))
    parameters = {"objective": "binary", "num_leaves": 4, "verbose": -1, "num_threads": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0] > 2), 10).model_to_string().encode()
