"""Rollouts of bad versions while workers die: few requests meet them, and no alias moves twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import lightgbm
import numpy as np

from inferd import SyncClient
from inferd.schemas.models import AliasChangeKey, AliasTarget, decode_alias, parse_model_key, target_of
from inferd.schemas.rollouts import Rollout
from inferd.streams.inference import manifest_of
from tests.chaos.faults import fault
from tests.chaos.fleet import status
from tests.chaos.kinds import N_FEATURES, ROLLED, RolledRows
from tests.chaos.system import System
from tests.fixtures.workers import Cluster, Worker, until

ANSWERED_WITHIN_S, ENDS_WITHIN_S = 60.0, 60.0
ROLLED_BACK_WITHIN_S = 45.0
"""From the first request that met a bad version: a takeover and a restart of the killed workers are part of it."""
MET, SECONDS = "requests that met a bad version", "seconds from the first of them to the rollback, at most"


@fault("rollouts", recovers_within_s=90.0)
def bad_rollout(system: System, rng: random.Random) -> None:
    """A version that fails its requests is rolled out; a worker is killed meanwhile, and all of them afterwards."""
    kind = rolled_rows(system)
    with _client(system, rng) as (cluster, client):
        kind.reset()
        met = kind.met
        version = _deployed(system, client, _wider())
        client.rollouts.start(
            ROLLED, to=version, steps="50%:1h,100%", guards=["errors < 5%"], guard_requests_min=20,
            timeout_s=ANSWERED_WITHIN_S,
        )  # fmt: skip
        system.run_on(rng.uniform(0, 3))
        _kill(system, [rng.randrange(len(system.fleet.slots))])
        rollout = _ended(client)
        _kill(system, range(len(system.fleet.slots)))
        assert rollout.breach is not None, f"rollout of a bad version ended as {rollout.phase}, without a breach"
        breached_s = rollout.breach.at / 1_000
        seconds = breached_s - (kind.first_met_s or breached_s)
        system.count(MET, kind.met - met)
        system.totals[SECONDS] = max(system.totals.get(SECONDS, 0), round(seconds))
        assert seconds < ROLLED_BACK_WITHIN_S, f"rollout was rolled back {seconds:.0f} s after the first failed request"
        _check_end(system, cluster, client, rollout, "rolled_back")


@fault("rollouts", recovers_within_s=90.0)
def disagreeing_rollout(system: System, rng: random.Random) -> None:
    """A version that predicts something else is stopped in its shadow step, and answers nothing."""
    with _client(system, rng) as (cluster, client):
        client.rollouts.start(
            ROLLED, to=_deployed(system, client, _other()), steps="shadow:1h,100%", guards=["disagreement < 20%"],
            guard_requests_min=20, timeout_s=ANSWERED_WITHIN_S,
        )  # fmt: skip
        system.run_on(rng.uniform(0, 3))
        _kill(system, [rng.randrange(len(system.fleet.slots))])
        _check_end(system, cluster, client, _ended(client), "rolled_back")


@fault("rollouts", recovers_within_s=90.0)
def superseded_rollout(system: System, rng: random.Random) -> None:
    """Somebody else changes the alias of a running rollout: their change stays, also if the rollout is aborted."""
    with _client(system, rng) as (cluster, client):
        version = _deployed(system, client, system.models[1].data)
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


def _deployed(system: System, client: SyncClient, content: bytes) -> int:
    """The number of a new version, which every worker has loaded."""
    version = client.models().next_version(ROLLED)
    client.deploy_model(content, manifest_of(content, ROLLED, version))

    def is_ready(worker: Worker) -> bool:
        models = status(worker).get("models", ())
        return ("ready",) in {(m["state"],) for m in models if (m["model_id"], m["version"]) == (ROLLED, version)}

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
