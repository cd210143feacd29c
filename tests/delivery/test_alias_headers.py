"""Results by alias on a real broker say which revision and variant scored them, also over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgpack
import pytest

from inferd import Client
from inferd.schemas.codec import encode_submit
from inferd.schemas.models import AliasTarget, SplitShare
from inferd.streams.inference import manifest_of
from inferd.streams.inference.splits import versions_of
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel

REQUESTS = 300
SHARES = [SplitShare(1, 70.0), SplitShare(2, 30.0)]
pytestmark = pytest.mark.timeout(300)


def headers_of(record: Any) -> dict[str, bytes]:
    return dict(record.headers() or ())


async def check_job(cluster: Cluster, row: list[float]) -> None:
    """All results of a job have the version, revision and variant of its alias."""
    producer, (number,) = cluster.producer(), versions_of(SHARES, [b"job"]).tolist()
    producer.produce(cluster.topics.name("jobs"), encode_submit("churn@champion", [row] * 10, chunk_rows=4), b"job")
    assert producer.flush(30) == 0
    for record in await asyncio.to_thread(cluster.read, "job-results", lambda got: len(got) >= 3, 60):
        headers = headers_of(record)
        assert msgpack.unpackb(record.value())["version"] == number
        assert headers["inferd-variant"] == (b"champion" if number == 1 else b"canary")
        assert headers["inferd-alias-revision"] == b"1"


async def check_http(url: str, row: list[float], changed: int) -> None:
    """Responses name the changed revision once the worker has read it, errors included."""
    async with aiohttp.ClientSession() as http:

        async def revision() -> int:
            async with http.post(f"{url}/predict/churn", json={"input_data": row}) as answer:
                assert answer.status == 200
                return int(answer.headers["inferd-alias-revision"])

        deadline = asyncio.get_running_loop().time() + 60
        while await revision() != changed:
            assert asyncio.get_running_loop().time() < deadline, "the worker reads the change"
        async with http.post(f"{url}/predict/churn", json={"input_data": ["x"]}) as answer:
            assert answer.status == 422
            assert answer.headers["inferd-alias-revision"] == str(changed)
            assert answer.headers["inferd-variant"] == "champion"


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
async def test_results_name_the_revision_and_variant(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    content = model.booster.model_to_string().encode()
    row = [1.0] * model.booster.num_feature()
    async with Client(cluster.bootstrap, namespace=cluster.namespace) as client:
        for version in (1, 2):
            await client.deploy_model(content, manifest_of(content, "churn", version))
        await client.set_alias("churn", "champion", AliasTarget(split=SHARES))
        worker = start_worker(cluster, processing_guarantee=guarantee)
        await asyncio.to_thread(worker.wait_ready)
        producer = cluster.producer()
        keys = [b"customer-%d" % number for number in range(REQUESTS)]
        for number, key in enumerate(keys):
            name = ("churn", "churn@champion", "churn:2")[number % 3]
            value = msgpack.packb({"id": f"r{number}", "model_id": name, "input_data": row})
            producer.produce(cluster.topics.name("requests"), value, key)
        assert producer.flush(30) == 0
        results = await asyncio.to_thread(cluster.read, "results", lambda got: len(got) >= REQUESTS, 60)
        split = versions_of(SHARES, keys).tolist()
        variants = set()
        for record in results:
            result, headers = msgpack.unpackb(record.value()), headers_of(record)
            number = int(result["id"][1:])
            variant = headers.get("inferd-variant")
            if number % 3 == 2:
                assert (variant, headers.get("inferd-alias-revision")) == (None, None)
                continue
            assert result["version"] == split[number]
            assert headers["inferd-alias-revision"] == b"1"
            assert variant == (b"champion" if split[number] == 1 else b"canary")
            variants.add(variant)
        assert variants == {b"champion", b"canary"}
        await check_job(cluster, row)
        changed = await client.set_alias("churn", "champion", 2)
    await check_http(worker.url, row, changed.revision)
    assert worker.stop() == 0
