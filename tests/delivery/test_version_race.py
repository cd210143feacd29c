"""Deploys and removals that race, by several clients and over HTTP."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from inferd import Client
from inferd.errors import VersionExistsError
from inferd.schemas.errors import ModelNotFoundError, ModelServingError, VersionNotFoundError
from inferd.schemas.models import Manifest, VersionKey, decode_manifest
from inferd.streams.inference import manifest_of
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

CONTENTS, VERSIONS = 3, 25
CLIENTS, CALLERS, HTTP_CALLERS, HTTP_EVERY = 3, 3, 2, 6
pytestmark = pytest.mark.timeout(300)


@dataclass
class Ledger:
    """The results that callers got: deploys, as version keys with the digest of the content."""

    deployed: list[tuple[str, str]] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Race:
    contents: list[bytes]
    ledger: Ledger = field(default_factory=Ledger)

    def manifest(self, version: int, rng: random.Random) -> tuple[bytes, Manifest]:
        content = rng.choice(self.contents)
        return content, manifest_of(content, "race", version)

    async def by_client(self, client: Client, rng: random.Random) -> None:
        for version in range(1, VERSIONS + 1):
            await self.deploy(client, *self.manifest(version, rng))
            if rng.random() < 0.4:
                await self.remove(client, version)
                await self.deploy(client, *self.manifest(version, rng))

    async def deploy(self, client: Client, content: bytes, manifest: Manifest) -> None:
        deploy = (str(VersionKey(manifest.model_id, manifest.version)), manifest.sha256)
        try:
            await client.deploy_model(content, manifest)
            self.ledger.deployed.append(deploy)
        except VersionExistsError:
            self.ledger.rejected.append(deploy)
        except ModelServingError as error:
            self.ledger.others.append(repr(error))

    async def remove(self, client: Client, version: int) -> None:
        try:
            self.ledger.removed += await client.remove_model(f"race:{version}")
        except (ModelNotFoundError, VersionNotFoundError):
            pass
        except ModelServingError as error:
            self.ledger.others.append(repr(error))

    async def over_http(self, http: aiohttp.ClientSession, url: str, rng: random.Random) -> None:
        for version in range(1, VERSIONS + 1, HTTP_EVERY):
            content, manifest = self.manifest(version, rng)
            headers = {"content-type": "application/octet-stream"}
            async with http.put(f"{url}/models/race:{version}", data=content, headers=headers) as answer:
                code = (await answer.json()).get("error", {}).get("code")
            ledger = {None: self.ledger.deployed, "version_exists": self.ledger.rejected}
            if code in ledger:
                ledger[code].append((f"race/{version}", manifest.sha256))
            else:
                self.ledger.others.append(code)
            async with http.delete(f"{url}/models/race:{version}") as answer:
                if answer.status not in (200, 404):
                    self.ledger.others.append(await answer.text())


@pytest.fixture
def contents(model: TrainedModel) -> list[bytes]:
    """Models of different bytes that all pass their trial."""
    return [model.booster.model_to_string(num_iteration=trees).encode() for trees in range(1, CONTENTS + 1)]


@pytest.fixture
async def clients(cluster: Cluster) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        made = [Client(cluster.bootstrap, namespace=cluster.namespace) for _ in range(CLIENTS)]
        yield [await stack.enter_async_context(client) for client in made]


def manifests_by_version(records: list[Any]) -> dict[str, set[bytes]]:
    """The values that were ever written under the key of each version."""
    found: dict[str, set[bytes]] = defaultdict(set)
    for record in records:
        key = record.key().decode()
        if "#" not in key and record.value() is not None:
            found[key].add(record.value())
    return found


def live(records: list[Any], wanted: Callable[[str], bool] = lambda key: True) -> dict[str, bytes]:
    """The last value of each key that has one."""
    last = {record.key().decode(): record.value() for record in records}
    return {key: value for key, value in last.items() if value is not None and wanted(key)}


def missing_artifacts(versions: list[Manifest], parts: dict[str, bytes]) -> list[str]:
    return [str(v.version) for v in versions if len(parts.get(f"{v.sha256}/0", b"")) != v.size]


def ready_versions(worker: Worker) -> dict[str, str]:
    _, status = worker.get("/status")
    models = (status or {}).get("models", [])
    return {f"{m['model_id']}/{m['version']}": m["digest"] for m in models if m["state"] == "ready"}


async def test_a_version_never_changes_its_content(
    cluster: Cluster, clients: list[Client], contents: list[bytes], start_worker: StartWorker
) -> None:
    worker = start_worker(cluster)
    race, seed = Race(contents), random.Random(15)
    await clients[0].deploy_model(contents[0], manifest_of(contents[0], "ready", 1))
    await asyncio.to_thread(worker.wait_ready)
    async with aiohttp.ClientSession() as http:
        await asyncio.gather(
            *(race.by_client(client, random.Random(seed.random())) for client in clients for _ in range(CALLERS)),
            *(race.over_http(http, worker.url, random.Random(seed.random())) for _ in range(HTTP_CALLERS)),
        )
    ledger, log = race.ledger, await asyncio.to_thread(cluster.read_all, "models")
    written = manifests_by_version(log)
    content = {key: decode_manifest(next(iter(values))).sha256 for key, values in written.items()}
    versions = {key: decode_manifest(value) for key, value in live(log, lambda key: "#" not in key).items()}
    parts = live(await asyncio.to_thread(cluster.read_all, "model-artifacts"))
    problems = {
        "other errors": ledger.others,
        "versions of two contents": [key for key, values in written.items() if len(values) > 1],
        "deployed, but missing": [deploy for deploy in ledger.deployed if content.get(deploy[0]) != deploy[1]],
        "rejected, but not deployed": [deploy for deploy in ledger.rejected if content.get(deploy[0]) == deploy[1]],
        "missing artifacts": missing_artifacts(list(versions.values()), parts),
    }
    assert {what: found for what, found in problems.items() if found} == {}
    assert len(ledger.deployed) + len(ledger.rejected) + len(ledger.removed) > 200, "it was a race"
    assert min(len(ledger.deployed), len(ledger.rejected), len(ledger.removed)) > 20, "it was a race"
    expected = {key: manifest.sha256 for key, manifest in versions.items()}
    await asyncio.to_thread(until, lambda: ready_versions(worker) == expected, 120, "the worker serves what won")
    assert await asyncio.to_thread(cluster.read_all, "dead-letters") == []
    assert worker.stop() == 0
