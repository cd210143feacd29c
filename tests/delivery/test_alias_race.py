"""Clients that change one alias at the same time: of two changes of one revision, one succeeds and the other fails."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from inferd import Client
from inferd.errors import AliasChangedError
from inferd.schemas.models import Alias, AliasKey, AliasLog, decode_alias, parse_model_key
from inferd.streams.inference import manifest_of
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

CLIENTS, ROUNDS, ROUNDS_LEAST, ROUNDS_S = 4, 300, 40, 20.0
KEY = AliasKey("race", "champion")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def clients(cluster: Cluster) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        made = [Client(cluster.bootstrap, namespace=cluster.namespace) for _ in range(CLIENTS)]
        yield [await stack.enter_async_context(client) for client in made]


async def by_client(client: Client, version: int, name: str) -> Alias | None:
    try:
        return await client.set_alias("race", "champion", version, changed_by=name)
    except AliasChangedError:
        return None


async def over_http(http: aiohttp.ClientSession, url: str, version: int, name: str) -> int | None:
    """The revision; None if the worker says that the alias was changed."""
    path = f"{url}/models/race/aliases/champion?changed_by={name}"
    async with http.put(path, json={"version": version}) as answer:
        body = await answer.json()
        if answer.status == 409:
            assert body["error"]["code"] == "alias_changed", body
            return None
        assert answer.status == 200, body
        return int(body["target"]["revision"])


def alias_of(worker: Worker) -> list[int]:
    _, status = worker.get("/status")
    models = (status or {}).get("models", [])
    return [model["version"] for model in models if "champion" in model["aliases"]]


async def test_no_change_is_overwritten_silently(
    cluster: Cluster, clients: list[Client], model: TrainedModel, start_worker: StartWorker
) -> None:
    worker = start_worker(cluster)
    content = model.booster.model_to_string().encode()
    for version in range(1, CLIENTS + 3):
        await clients[0].deploy_model(content, manifest_of(content, "race", version))
    await asyncio.to_thread(worker.wait_ready)
    winners: dict[int, str] = {}
    tally: Counter[str] = Counter()
    last, begun = 0, time.monotonic()
    async with aiohttp.ClientSession() as http:
        for number in range(ROUNDS):
            if number >= ROUNDS_LEAST and time.monotonic() > begun + ROUNDS_S:
                break
            # Each version is another one than in the round before, so that no change finds its target there already.
            versions = [(number + each) % (CLIENTS + 2) + 1 for each in range(CLIENTS + 1)]
            versions = [
                version if version != last else (number + CLIENTS + 1) % (CLIENTS + 2) + 1 for version in versions
            ]
            names = [f"{number}.{each}" for each in range(CLIENTS + 1)]
            calls: list[Any] = [
                by_client(client, version, name)
                for client, version, name in zip(clients, versions, names, strict=False)
            ]
            if number % 3 == 0:
                calls.append(over_http(http, worker.url, versions[-1], names[-1]))
            for name, outcome in zip(names, await asyncio.gather(*calls), strict=False):
                tally["told" if outcome is None else "made"] += 1
                revision = outcome.revision if isinstance(outcome, Alias) else outcome
                if revision is not None:
                    assert revision not in winners, f"two changes are revision {revision}"
                    winners[revision] = name
            last = versions[int(winners[max(winners)].split(".")[1])]
    assert sorted(winners) == list(range(1, len(winners) + 1))
    assert tally["made"] >= ROUNDS_LEAST
    assert tally["told"] > ROUNDS_LEAST, "it was a race"
    records = await asyncio.to_thread(cluster.read_all, "models")
    log, authors = AliasLog(), dict[int, str | None]()
    for record in records:
        key = parse_model_key(record.key())
        if str(key).startswith("race@"):
            log.apply(key, None if record.value() is None else decode_alias(record.value()))  # type: ignore[arg-type]
            if (newest := log.newest) is not None:
                authors.setdefault(newest.revision, newest.changed_by)
    assert authors == winners, "the log has the change of everybody who was told that it was made"
    assert len(log.pending) == 1, "changes that no longer matter are deleted"
    await asyncio.to_thread(until, lambda: alias_of(worker) == [last], 60, "the worker serves the last change")
    back = await clients[1].rollback_alias("race", "champion", revision=len(winners))
    assert (back.revision, back.restores) == (len(winners) + 1, len(winners) - 1)
    await asyncio.to_thread(until, lambda: alias_of(worker) == [back.version], 60, "the worker serves what was before")
    assert await asyncio.to_thread(cluster.read_all, "dead-letters") == []
    assert worker.stop() == 0
