"""Models that are deployed, removed or corrupt while requests are answered."""

from __future__ import annotations

import random
from typing import Any

from tests.chaos.faults import fault
from tests.chaos.fleet import status
from tests.chaos.system import System
from tests.fixtures.workers import TrainedModel, until

KNOWN_WITHIN_S = 40.0


@fault("models")
def model_swapped(system: System, _rng: random.Random) -> None:
    """Deploys a new version of the model of most requests: each answer has its digest and the matching prediction."""
    system.versions += 1
    system.mark()
    model = system.models[system.versions % len(system.models)]
    for cluster in system.clusters:
        cluster.deploy(model, "demo", system.versions)
    _wait_for(system, "demo", system.versions, "ready")
    # Or each later worker would have more versions to try before it starts.
    for version in range(system.oldest_version, system.versions):
        _remove(system, "demo", version)
    system.oldest_version = system.versions


@fault("models")
def model_corrupt(system: System, rng: random.Random) -> None:
    """A new version that LightGBM cannot load: it fails its trial, and the previous version continues to serve."""
    system.versions += 1
    good = system.models[0]
    data = bytearray(good.data)
    for _ in range(50):
        data[rng.randrange(len(data) // 2)] = rng.randrange(256)
    broken = TrainedModel(good.booster, bytes(data), good.n_features)
    system.mark()
    for cluster in system.clusters:
        _deploy_as(system, cluster, good, broken)
    try:
        _wait_for(system, "demo", system.versions, "failed")
    finally:
        _remove(system, "demo", system.versions)


def _deploy_as(system: System, cluster: Any, good: TrainedModel, broken: TrainedModel) -> None:
    """The broken bytes, with the manifest of the valid model except for digest and size."""
    import hashlib

    import msgspec

    from inferd.schemas.codec import encode_manifest

    digest = hashlib.sha256(broken.data).hexdigest()
    manifest = msgspec.structs.replace(good.manifest("demo", system.versions), sha256=digest, size=len(broken.data))
    producer = cluster.producer()
    producer.produce(cluster.topics.name("model-artifacts"), broken.data, f"{digest}/0".encode())
    producer.produce(cluster.topics.name("models"), encode_manifest(manifest), f"demo/{system.versions}".encode())
    assert producer.flush(30) == 0


@fault("models")
def model_removed(system: System, rng: random.Random) -> None:
    """A model is removed and deployed again; in between, its requests get typed errors."""
    _remove(system, "side", 1)
    until(lambda: all(_states(w, "side", 1) == [] for w in system.fleet.slots), KNOWN_WITHIN_S, "the model gone")
    system.run_on(rng.uniform(0.2, 1))
    system.mark()
    for cluster in system.clusters:
        cluster.deploy(rng.choice(system.models), "side")
    _wait_for(system, "side", 1, "ready")


def _remove(system: System, name: str, version: int) -> None:
    for cluster in system.clusters:
        producer = cluster.producer()
        producer.produce(cluster.topics.name("models"), None, f"{name}/{version}".encode())
        assert producer.flush(30) == 0


def _wait_for(system: System, name: str, version: int, state: str) -> None:
    def all_say_so() -> bool:
        system.fleet.supervise()
        everywhere = [state] * len(system.clusters)
        return all(_states(worker, name, version) == everywhere for worker in system.fleet.slots)

    until(all_say_so, KNOWN_WITHIN_S, f"{name}:{version} {state} at every worker")


def _states(worker: Any, name: str, version: int) -> list[str] | None:
    """The states of a version, one per tenant that has it; None if the worker does not report it."""
    said = status(worker)
    if not said:
        return None
    return [m["state"] for m in said["models"] if (m["model_id"], m["version"]) == (name, version)]
