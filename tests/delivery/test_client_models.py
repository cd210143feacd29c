"""Deploying, listing and removing models over a real Kafka."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from inferd import Client
from inferd.errors import VersionExistsError
from inferd.models.model_list import GRACE_MS
from inferd.schemas.errors import (
    InvalidIdError,
    InvalidValueError,
    ModelNotFoundError,
    VersionNotFoundError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.models import (
    AliasKey,
    ClaimKey,
    Feature,
    LeaseKey,
    Manifest,
    VersionKey,
    decode_manifest,
    encode_manifest,
    parse_model_key,
)
from inferd.schemas.requests.request import PredictionRequest
from inferd.schemas.requests.result import Failure, Result
from inferd.schemas.topics import TenantTopics
from tests.fixtures.stand_in_worker import Seen, create_topics, stand_in_worker, sums

PART_BYTES = 10
MODEL = b"0123456789 a model of 33 bytes ..."


@pytest.fixture
async def topics(kafka: str, namespace: str) -> TenantTopics:
    topics = TenantTopics(namespace, "default")
    await create_topics(kafka, topics)
    return topics


@pytest.fixture
async def client(kafka: str, topics: TenantTopics) -> AsyncIterator[Client]:
    limits = Limits(artifact_part_bytes_max=PART_BYTES)
    async with Client(kafka, namespace=topics.namespace, limits=limits) as connected:
        yield connected


def manifest(model: bytes = MODEL, name: str = "churn", version: int = 1, **more: object) -> Manifest:
    sha256 = hashlib.sha256(model).hexdigest()
    features = [Feature("age"), Feature("plan", "category", ["basic", "pro"])]
    return Manifest(name, version, "lightgbm", sha256, len(model), features, **more)  # type: ignore[arg-type]


async def records(kafka: str, topic: str) -> list[tuple[str, bytes | None]]:
    """Key and value of all records of a topic with one partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[tuple[str, bytes | None]] = []
        while len(found) < end:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += [((record.key or b"").decode(), record.value) for record in batch]
        return found
    finally:
        await consumer.stop()


async def test_a_deploy_writes_the_parts_and_then_the_manifest(
    kafka: str, topics: TenantTopics, client: Client
) -> None:
    deployed = await client.deploy_model(MODEL, manifest())
    parts = await records(kafka, topics.name("model-artifacts"))
    assert [key for key, _ in parts] == [f"{deployed.sha256}/{part}" for part in range(4)]
    assert b"".join(value or b"" for _, value in parts) == MODEL
    log = await records(kafka, topics.name("models"))
    claim, lease, version, end_of_lease = [parse_model_key(key.encode()) for key, _ in log]
    assert (claim, version) == (ClaimKey("churn", 1, getattr(claim, "id", "")), VersionKey("churn", 1))
    assert lease == end_of_lease == LeaseKey(deployed.sha256, getattr(lease, "id", ""))
    assert [value and decode_manifest(value) for _, value in log] == [deployed, deployed, deployed, None]
    assert await client.list_models() == [deployed]


async def test_a_model_file_and_an_alias(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(MODEL)
    await client.deploy_model(path, manifest(), alias="champion")
    models = await client.models()
    (alias,) = models.aliases.items()
    assert alias[0] == AliasKey("churn", "champion")
    assert (alias[1].version, alias[1].revision, alias[1].history) == (1, 1, None)


async def test_models_are_listed_by_name_and_version(client: Client) -> None:
    for name, version in (("b", 10), ("b", 9), ("a", 1)):
        await client.deploy_model(MODEL, manifest(name=name, version=version))
    assert [(m.model_id, m.version) for m in await client.list_models()] == [("a", 1), ("b", 9), ("b", 10)]


async def test_a_manifest_of_another_file_is_rejected(client: Client) -> None:
    with pytest.raises(InvalidValueError, match="other bytes"):
        await client.deploy_model(MODEL + b"!", manifest())
    assert await client.list_models() == []


async def test_a_version_never_changes(client: Client) -> None:
    await client.deploy_model(MODEL, manifest())
    await client.deploy_model(MODEL, manifest(created_at="2030-01-01T00:00:00Z"))
    with pytest.raises(VersionExistsError, match="deploy as version 2"):
        await client.deploy_model(b"other", manifest(b"other"))


async def write_leases(kafka: str, topics: TenantTopics, of: Manifest, keys: list[str], at_ms: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for key in keys:
            await producer.send_and_wait(topics.name("models"), encode_manifest(of), key.encode(), timestamp_ms=at_ms)


async def test_the_artifact_of_a_removed_version_is_collected_after_a_grace_period(
    kafka: str, topics: TenantTopics, client: Client
) -> None:
    await client.deploy_model(MODEL, manifest(version=1))
    await client.remove_model("churn:1")
    await client.deploy_model(b"other", manifest(b"other", version=2))
    assert all(value is not None for _, value in await records(kafka, topics.name("model-artifacts")))
    leases = [str(key) for key in (await client.models()).leases[manifest().sha256]]
    await write_leases(kafka, topics, manifest(), leases, int(time.time() * 1_000) - GRACE_MS - 1_000)
    await client.deploy_model(b"another", manifest(b"another", version=3))
    removed = [key for key, value in await records(kafka, topics.name("model-artifacts")) if value is None]
    assert removed == [f"{manifest().sha256}/{part}" for part in range(4)]
    assert (await client.models()).leases == {}


async def test_the_parts_of_a_deploy_that_was_never_finished_are_collected(
    kafka: str, topics: TenantTopics, client: Client
) -> None:
    key, part = str(LeaseKey.new(manifest().sha256)), f"{manifest().sha256}/0"
    await write_leases(kafka, topics, manifest(), [key], int(time.time() * 1_000) - GRACE_MS - 1_000)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topics.name("model-artifacts"), MODEL[:PART_BYTES], part.encode())
    await client.deploy_model(b"other", manifest(b"other"))
    assert (part, None) in await records(kafka, topics.name("model-artifacts"))


async def test_a_deploy_waits_while_its_artifact_is_collected(kafka: str, topics: TenantTopics, client: Client) -> None:
    mark = str(LeaseKey.new(manifest().sha256, collecting=True))
    await write_leases(kafka, topics, manifest(), [mark], int(time.time() * 1_000))
    deploying = asyncio.create_task(client.deploy_model(MODEL, manifest()))
    async with asyncio.timeout(30):
        while len((await client.models()).leases.get(manifest().sha256, {})) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await records(kafka, topics.name("model-artifacts")) == []
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topics.name("models"), None, mark.encode())
    assert await deploying in await client.list_models()


async def test_the_number_of_a_removed_version_is_not_reused(client: Client) -> None:
    await client.deploy_model(MODEL, manifest(version=3))
    await client.remove_model("churn:3")
    assert (await client.models()).next_version("churn") == 4
    with pytest.raises(VersionExistsError, match="deploy as version 4"):
        await client.deploy_model(b"other", manifest(b"other", version=3))
    assert await client.deploy_model(MODEL, manifest(version=3)) in await client.list_models()


async def test_the_number_of_a_version_that_another_program_deployed_is_not_given_again(
    kafka: str, topics: TenantTopics, client: Client
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topics.name("models"), encode_manifest(manifest()), b"churn/1")
    await client.remove_model("churn:1")
    with pytest.raises(VersionExistsError, match="deploy as version 2"):
        await client.deploy_model(b"other", manifest(b"other"))


async def test_a_whole_model_is_removed_only_on_request(client: Client) -> None:
    await client.deploy_model(MODEL, manifest(version=1), alias="champion")
    await client.deploy_model(MODEL, manifest(version=2))
    with pytest.raises(InvalidIdError, match="churn:1"):
        await client.remove_model("churn")
    assert await client.remove_model("churn@champion") == ["churn@champion"]
    assert sorted(await client.remove_model("churn", everything=True)) == ["churn/1", "churn/2"]


async def test_removing_a_missing_version_is_an_error(client: Client) -> None:
    with pytest.raises(ModelNotFoundError):
        await client.remove_model("churn:1")
    await client.deploy_model(MODEL, manifest())
    with pytest.raises(VersionNotFoundError, match="no version 2"):
        await client.remove_model("churn:2")
    with pytest.raises(VersionNotFoundError, match="no alias 'best'"):
        await client.remove_model("churn@best")


async def test_requests_to_a_model_just_deployed_are_retried(kafka: str, topics: TenantTopics, client: Client) -> None:
    asked = 0

    def not_found_at_first(request: PredictionRequest, seen: Seen) -> Result:
        nonlocal asked
        asked += 1
        if asked < 3:
            return Failure(request.id or "", "churn", "model_not_found", "there is no model", False)
        return sums(request, seen)

    await client.deploy_model(MODEL, manifest())
    async with stand_in_worker(kafka, topics, not_found_at_first):
        assert (await client.predict("churn", [1, 2])).outputs == {"prediction": 3.0}
        asked = 0
        with pytest.raises(ModelNotFoundError):
            await client.predict("other", [1, 2])
        assert asked == 1
