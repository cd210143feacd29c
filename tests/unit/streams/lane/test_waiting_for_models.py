"""Requests for an unloaded model wait in their partition, in order; other requests do not wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import pytest

from inferd.schemas.models.model import Alias, SplitShare
from inferd.schemas.protocols import Exchanges
from inferd.streams.inference.catalog import ServedModel, Version
from inferd.streams.inference.needed_versions import NeededVersions
from inferd.streams.models.on_demand import OnDemandLoader
from tests.fixtures.lane import Bench, request, sum_model, tp


class Loads:
    """A fake of `OnDemandLoader`: a version is loaded only when the test does it."""

    bounded = True

    def __init__(self) -> None:
        self.pins: list[str] = []

    def waits_for(self, tenant: str, version: Version) -> bool:
        return version.served is None and version.reason is None

    @contextmanager
    def pinned(self, tenant: str, versions: Any) -> Iterator[None]:
        names = sorted(version.manifest.model_id for version in versions)
        self.pins += names
        yield


def slow(bench: Bench, *, loaded: bool = False, reason: str | None = None) -> None:
    """Puts a model that is loaded on demand into the catalog."""
    model = sum_model()
    manifest = msgspec.structs.replace(model.manifest, model_id="slow")
    served = ServedModel(manifest, model.runtime, model.features, model.postprocessor) if loaded else None
    bench.catalog.put(Version(manifest, "ready" if loaded else "unloaded", reason, served, manifest))


def value_of(number: int, model_id: str) -> bytes:
    return cast(bytes, request(number, model_id=model_id).value)


@pytest.fixture
def loads(bench: Bench) -> Loads:
    made = Loads()
    bench.tenant.on_demand = cast(OnDemandLoader, made)
    bench.broker.acknowledges = True
    slow(bench)
    return made


async def test_they_wait_in_their_partition_in_order(bench: Bench, loads: Loads) -> None:
    await bench.own(0, 1)
    models = ["sum", "slow", "sum", "slow"]
    bench.lane.feed(tp(0), [request(offset, model_id=name) for offset, name in enumerate(models)])
    bench.lane.feed(tp(1), [request(offset, 1) for offset in range(3)])
    await bench.until(lambda: len(bench.results()) == 4)
    assert {result["id"] for result in bench.results()} == {"r0.0", "r1.0", "r1.1", "r1.2"}
    await bench.until(lambda: bench.lane.partitions[tp(0)].pending == 3)
    slow(bench, loaded=True)
    bench.lane.resume("default")
    await bench.until(lambda: len(bench.results()) == 7)
    of_first = [result["id"] for result in bench.results() if result["id"].startswith("r0")]
    assert of_first == ["r0.0", "r0.1", "r0.2", "r0.3"]
    assert set(loads.pins) == {"sum", "slow"}
    await bench.until(lambda: bench.consumer.committed_offsets.get(tp(0)) == 4)


async def test_they_retry_without_a_notification(bench: Bench, loads: Loads) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0, model_id="slow")])
    await bench.until(lambda: bench.lane.partitions[tp(0)].queued == 1)
    slow(bench, reason="it could not be loaded")
    await bench.until(bench.results)
    assert bench.results()[0]["error"]["message"] == "slow:1 is unloaded: it could not be loaded"


async def test_requests_over_http_wait_each_for_itself(bench: Bench, loads: Loads) -> None:
    bench.tenant.direct.wake = lambda: bench.lane.wake(bench.tenant.topic)
    of_slow = [bench.tenant.direct.ask(value_of(n, "slow"), (), 1_000) for n in range(2)]
    of_sum = bench.tenant.direct.ask(value_of(2, "sum"), (), 1_000)
    bench.lane.wake(bench.tenant.topic)
    await bench.until(of_sum.answer.done)
    assert not any(asked.answer.done() for asked in of_slow)
    assert not bench.tenant.waits, "the worker does not spin"
    slow(bench, loaded=True)
    bench.tenant.direct.resume()
    await bench.until(lambda: all(asked.answer.done() for asked in of_slow))
    assert msgspec.msgpack.decode(of_slow[1].answer.result().value)["prediction"] == 2.0


def test_the_version_that_a_record_needs(bench: Bench) -> None:
    slow(bench)
    first = bench.catalog.version("sum", 1)
    second = sum_model(2)
    bench.catalog.put(Version(second.manifest, "ready", None, second))
    bench.catalog.put_alias("sum", "half", Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0)]))
    needed = NeededVersions(bench.catalog, Exchanges(bench.tenant.scorer.limits), now_ms=2_000)

    def of(record: Any) -> Version | None:
        return needed.of(0, record)

    assert of(request(0, model_id="sum:1")) is first
    assert of(request(0, model_id="slow")) is bench.catalog.version("slow", 1)
    for offset in range(20):
        record = request(offset, model_id="sum@half")
        version = of(record)
        assert version is not None
        outcome = bench.tenant.scorer.prepare([(0, [record])], 2_000)
        assert outcome.groups[0].model is version.served, "the same share as in scoring"
    bad = [request(0, value=b""), request(0, value=b"\xc1"), request(0, model_id="none"), request(0, model_id="a b")]
    assert [of(record) for record in bad] == [None] * 4
    late = request(0, model_id="slow")
    late.headers = (("deadline", b"1999"),)
    assert of(late) is None
