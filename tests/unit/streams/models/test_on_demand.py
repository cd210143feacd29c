"""Versions beyond the memory budget: loaded for requests, unloaded for others, and the handling of failed loads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inferd.schemas.errors import ModelNotReadyError
from inferd.schemas.limits import Limits
from inferd.schemas.models.model import Alias, Manifest
from inferd.schemas.requests.request import ModelReference
from inferd.streams.inference.catalog import ServedModel, Version
from inferd.streams.models import on_demand as on_demand_module
from inferd.streams.models.memory_budget import Key
from inferd.streams.models.on_demand import OnDemandLoader
from inferd.streams.settings import ModelSettings
from tests.fixtures.models import Followed, digest_of, load_sum

A, B, C = b"model a, of some twenty bytes", b"model b, of some more than twenty bytes", b"model c"
Load = Callable[[Path, Manifest, int, Limits], ServedModel]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Load], None]:
    """Replaces the function that loads a version for a request."""
    monkeypatch.setattr(on_demand_module, "load_model", load_sum)
    return lambda function: monkeypatch.setattr(on_demand_module, "load_model", function)


async def start(followed: Followed, room_for: int = 1, **changes: Any) -> OnDemandLoader:
    """A follower with memory for some models, each of which takes 100 bytes."""
    models = ModelSettings(bytes_max=100 * room_for, **changes)
    return (await followed.start(replace(followed.settings, models=models))).on_demand


def states(followed: Followed, tenant: str = "default") -> list[str]:
    return [version.state for version in followed.follower.catalogs[tenant].versions()]


async def wait_for(followed: Followed, number: int, tenant: str = "default") -> Version:
    """A request that polls its version until it need not wait."""
    on_demand = followed.follower.on_demand
    await followed.until(lambda: not on_demand.waits_for(tenant, followed.version(number, tenant)))
    with on_demand.pinned(tenant, [followed.version(number, tenant)]):
        pass  # it is scored
    return followed.version(number, tenant)


@pytest.mark.usefixtures("load")
async def test_aliases_targets_load_first_and_the_rest_at_a_request(followed: Followed) -> None:
    for number, data in enumerate((A, B, C), 1):
        followed.log.deploy(data, number)
    followed.log.alias("champion", Alias(2))
    followed.log.alias("canary", Alias(3))
    on_demand = await start(followed, room_for=2)
    assert states(followed) == ["unloaded", "ready", "ready"]
    with pytest.raises(ModelNotReadyError, match="m:1 is unloaded: the next request loads it"):
        followed.resolve("m:1")
    await wait_for(followed, 2)
    assert (await wait_for(followed, 1)).state == "ready"
    assert states(followed) == ["ready", "ready", "unloaded"], "the least recently used"
    assert followed.resolve("m:1").sha256 == digest_of(A)
    memory = on_demand.snapshot()
    assert (memory.loaded, memory.bytes, memory.bytes_max) == (2, 200, 200)
    assert (memory.loads, memory.unloads, memory.load_failures, memory.waiting) == (3, 1, 0, 0)
    assert sum(on_demand.waits.snapshot().counts) == 1


@pytest.mark.usefixtures("load")
async def test_a_name_without_an_alias_means_the_newest_version_loaded_or_not(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    await start(followed)
    followed.log.deploy(B, 2)
    await followed.until_state("unloaded", 2)
    with pytest.raises(ModelNotReadyError, match="m:2 is unloaded"):
        followed.resolve("m")


@pytest.mark.usefixtures("load")
async def test_the_target_of_an_alias_is_loaded_if_there_is_room(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    await start(followed)
    assert states(followed) == ["ready", "unloaded"]
    followed.log.alias("champion", Alias(2))
    followed.log.remove(1)
    await followed.until(lambda: states(followed) == ["unloaded"])
    followed.log.alias("next", Alias(2))
    await followed.until(lambda: states(followed) == ["ready"])


@pytest.mark.usefixtures("load")
async def test_code_of_users_waits_in_its_thread(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    on_demand = await start(followed)
    loop, reference = asyncio.get_running_loop(), ModelReference.parse("m:2")
    await asyncio.to_thread(on_demand.load_from_thread, loop, "default", reference, b"")
    assert followed.resolve("m:2").version == 2
    on_demand.load_from_thread(loop, "default", ModelReference.parse("m:1"), b"")  # the event loop does not wait


async def test_many_requests_load_a_version_once_and_off_the_event_loop(
    followed: Followed, load: Callable[[Load], None]
) -> None:
    threads: list[threading.Thread] = []

    def note(path: Path, manifest: Manifest, n: int, limits: Limits) -> ServedModel:
        threads.append(threading.current_thread())
        return load_sum(path, manifest, n, limits)

    load(note)
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    await start(followed)
    await asyncio.gather(*(wait_for(followed, 2) for _ in range(20)))
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


async def test_a_load_of_one_tenant_does_not_delay_other_tenants(
    followed: Followed, load: Callable[[Load], None]
) -> None:
    finish = threading.Event()

    def stuck_for_m2(path: Path, manifest: Manifest, n: int, limits: Limits) -> ServedModel:
        if manifest.sha256 == digest_of(B):
            assert finish.wait(30)
        return load_sum(path, manifest, n, limits)

    load(stuck_for_m2)
    followed.log.deploy(B, 1)
    followed.log.deploy(A, 2)
    followed.log.deploy(C, 1, tenant="other")
    followed.log.deploy(A, 2, tenant="other")
    on_demand = await start(followed, room_for=2)
    assert states(followed) == ["ready", "ready"]
    await wait_for(followed, 1, "other")
    assert states(followed) == ["unloaded", "ready"]
    try:
        assert on_demand.waits_for("default", followed.version(1))
        await wait_for(followed, 2, "other")
        assert on_demand.waits_for("default", followed.version(1)), "it is still being loaded"
    finally:
        finish.set()
    assert (await wait_for(followed, 1)).served is not None


async def test_a_failed_load_is_the_reason_of_its_requests_and_is_tried_again(
    followed: Followed, load: Callable[[Load], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> ServedModel:
        raise KeyError("bug")

    load(fail)
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    on_demand = await start(followed)
    version = await wait_for(followed, 2)
    assert (version.state, version.served) == ("unloaded", None)
    with pytest.raises(ModelNotReadyError, match=r"it could not be loaded \(KeyError: 'bug'\); a request after 5 s"):
        followed.resolve("m:2")
    assert not on_demand.waits_for("default", version), "answered with the error at once, for some time"
    assert on_demand.snapshot().load_failures == 1
    load(load_sum)
    on_demand._failed_until.clear()
    assert (await wait_for(followed, 2)).reason is None
    assert followed.resolve("m:2").version == 2


async def test_a_request_waits_no_longer_than_the_settings_allow(
    followed: Followed, load: Callable[[Load], None]
) -> None:
    finish = threading.Event()

    def stuck(path: Path, manifest: Manifest, n: int, limits: Limits) -> ServedModel:
        assert finish.wait(30)
        return load_sum(path, manifest, n, limits)

    load(stuck)
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    await start(followed, load_timeout_s=0.1)
    try:
        assert (await wait_for(followed, 2)).served is None
        with pytest.raises(ModelNotReadyError, match=r"it was not loaded within 0\.1 s"):
            followed.resolve("m:2")
    finally:
        finish.set()
    await followed.until(lambda: followed.version(2).served is not None)
    assert followed.version(2).reason is None


@pytest.mark.usefixtures("load")
async def test_pinned_versions_are_not_unloaded(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand_module, "LOOK_AGAIN_S", 0.001)
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    on_demand = await start(followed)
    make_room, looked = on_demand._make_room, list[bool]()

    def note(key: Key) -> bool:
        looked.append(make_room(key))
        return looked[-1]

    monkeypatch.setattr(on_demand, "_make_room", note)
    with on_demand.pinned("default", [followed.version(1)]):
        assert on_demand.waits_for("default", followed.version(2))
        await followed.until(lambda: len(looked) > 3)
        assert not any(looked)
        assert states(followed) == ["ready", "unloaded"]
    await wait_for(followed, 2)
    assert states(followed) == ["unloaded", "ready"]


@pytest.mark.parametrize("damage", ["removed", "changed"])
async def test_a_file_that_is_missing_or_damaged_is_fetched_again(
    followed: Followed, load: Callable[[Load], None], damage: str
) -> None:
    def read(path: Path, manifest: Manifest, n: int, limits: Limits) -> ServedModel:
        if path.read_bytes() != B:
            raise ModelNotReadyError("these are other bytes")
        return load_sum(path, manifest, n, limits)

    load(read)
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    on_demand = await start(followed)
    file = followed.settings.data_dir / "artifacts" / "default" / f"{digest_of(B)}.model"
    assert file.read_bytes() == B
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(b"other bytes")
    assert (await wait_for(followed, 2)).reason == (
        "its file is missing or damaged on disk, and is fetched again; a request after 5 s tries again"
    )

    def loaded() -> bool:
        on_demand._failed_until.clear()
        return not on_demand.waits_for("default", followed.version(2)) and followed.version(2).served is not None

    await followed.until(loaded)
    assert file.read_bytes() == B


@pytest.mark.usefixtures("load")
async def test_a_model_that_never_fits_is_rejected(followed: Followed) -> None:
    followed.trials.resident_bytes = 101
    followed.log.deploy(A, 1)
    await start(followed)
    assert followed.version().reason == "it takes 101 bytes of memory, INFERD_MODELS_BYTES_MAX allows 100"
    assert followed.codes() == ["too_large"]


@pytest.mark.usefixtures("load")
async def test_removed_versions_make_room_and_replaced_ones_serve_on(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    on_demand = await start(followed)
    followed.log.remove(1)
    await followed.until(lambda: states(followed) == ["unloaded"])
    assert on_demand.snapshot().bytes == 0
    followed.trials.reasons[C] = "it aborts"
    followed.log.deploy(C, 2)
    version = await followed.until_state("failed", 2)
    assert version.reason == f"the model did not pass its trial: it aborts; digest {digest_of(B)} continues to serve"
    await wait_for(followed, 2)
    assert (followed.version(2).state, followed.resolve("m:2").sha256) == ("failed", digest_of(B))


async def test_without_a_budget_everything_is_loaded(followed: Followed) -> None:
    for number, data in enumerate((A, B, C), 1):
        followed.log.deploy(data, number)
    on_demand = await start(followed, room_for=0)
    assert states(followed) == ["ready"] * 3
    memory = on_demand.snapshot()
    assert (memory.loaded, memory.bytes, memory.bytes_max, memory.loads) == (3, None, None, 3)
