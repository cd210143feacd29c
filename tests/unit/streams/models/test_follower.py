"""Deploys over a log of model records: versions that serve, rejected records, and faults that do not disturb served
versions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from inferd.schemas.codec import decode_manifest, encode_manifest
from inferd.schemas.codecs import JSON
from inferd.schemas.errors import (
    ModelNotFoundError,
    ModelNotReadyError,
    SchemaMismatchError,
    ServerError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.models.model import Alias, ClaimKey, LeaseKey, SplitShare, VersionKey
from inferd.schemas.topics import Stream
from inferd.streams.inference import TrialLimits
from inferd.streams.inference.loading import load_model
from inferd.streams.models import follower as follower_module
from inferd.streams.models import loader
from inferd.streams.models.artifact_store import ArtifactStore
from inferd.streams.models.trial.process import Verdict
from inferd.streams.models.trial.trial import TrialCase, try_models
from inferd.streams.settings import TrialSettings
from tests.fixtures.models import Followed, digest_of, load_sum, manifest_for
from tests.fixtures.workers import TrainedModel

A, B = b"model a, of some twenty bytes", b"model b, of some more than twenty bytes"


# Deployed versions


async def test_versions_deployed_before_the_start_are_served(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    await followed.start()
    assert [v.state for v in followed.follower.catalogs["default"].versions()] == ["ready", "ready"]
    assert followed.resolve().version == 2
    assert followed.resolve("m:1").sha256 == digest_of(A)
    assert followed.trials.tried == [[A, B]], "all are tested together, once"


async def test_versions_deployed_after_the_start_are_followed(followed: Followed) -> None:
    await followed.start()
    with pytest.raises(ModelNotFoundError):
        followed.resolve()
    followed.log.deploy(A, 1)
    await followed.until_state("ready")
    followed.log.deploy(B, 2)
    await followed.until_state("ready", 2)
    assert (followed.resolve().version, followed.resolve("m:1").version) == (2, 1)


async def test_a_manifest_may_arrive_before_its_parts(followed: Followed) -> None:
    await followed.start()
    followed.log.manifest(manifest_for(A))
    followed.log.parts(A, 2, 0)
    await followed.until_reason("10 of 29 bytes of its artifact have arrived")
    with pytest.raises(ModelNotReadyError, match="10 of 29 bytes"):
        followed.resolve()
    followed.log.parts(A, 1)
    assert (await followed.until_state("ready")).reason is None
    assert followed.rejected == []


async def test_versions_may_share_an_artifact(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.manifest(manifest_for(A, 2))
    await followed.start()
    assert [followed.resolve(name).sha256 for name in ("m:1", "m:2")] == [digest_of(A)] * 2


async def test_a_manifest_may_be_json(followed: Followed) -> None:
    await followed.start()
    followed.log.parts(A)
    value = encode_manifest(manifest_for(A), JSON)
    followed.log.write("models", b"m/1", value, headers=[("content-type", b"application/json")])
    await followed.until_state("ready")


async def test_a_repeated_manifest_changes_nothing(followed: Followed) -> None:
    followed.log.deploy(A)
    await followed.start()
    revision = followed.follower.catalogs["default"].revision
    followed.log.deploy(A)
    await followed.settled()
    assert [A] in followed.trials.tried
    assert sum(tried.count(A) for tried in followed.trials.tried) == 1
    assert followed.version().state == "ready"
    assert revision < followed.follower.catalogs["default"].revision, "only the marker"


async def test_aliases_are_followed(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    followed.log.alias("champion", Alias(1))
    await followed.start()
    assert (followed.resolve().version, followed.resolve("m@champion").version) == (1, 1)
    followed.log.alias("champion", Alias(split=[SplitShare(2, 1.0)]))
    await followed.until(lambda: followed.resolve().version == 2)
    followed.log.alias("champion", Alias(1))
    followed.log.alias("champion", None)
    await followed.settled()
    assert followed.resolve().version == 2


async def test_tenants_have_models_of_their_own(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 1, tenant="other")
    await followed.start()
    assert followed.resolve().sha256 == digest_of(A)
    assert followed.resolve(tenant="other").sha256 == digest_of(B)
    followed.log.remove(1)
    await followed.settled()
    with pytest.raises(ModelNotFoundError):
        followed.resolve()
    assert followed.resolve(tenant="other").version == 1


async def test_an_artifact_of_another_tenant_is_not_found(followed: Followed) -> None:
    followed.log.parts(A, tenant="other")
    followed.log.manifest(manifest_for(A))
    await followed.start()
    assert followed.version().reason == f"0 of {len(A)} bytes of its artifact have arrived"


# Removal


async def test_a_tombstone_removes_a_version(followed: Followed) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    await followed.start()
    followed.log.remove(2)
    await followed.until(lambda: followed.resolve().version == 1)
    followed.log.remove(7)
    followed.log.deploy(B, 2)
    await followed.until(lambda: followed.resolve().version == 2)


async def test_a_version_with_a_removed_artifact_serves_until_a_restart(followed: Followed) -> None:
    followed.log.deploy(A)
    await followed.start()
    followed.log.write("model-artifacts", f"{digest_of(A)}/0".encode(), None)
    await followed.settled()
    assert followed.resolve().version == 1
    again = await followed.start()
    version = again.catalogs["default"].version("m", 1)
    assert version is not None
    assert (version.state, version.served) == ("fetching", None)


async def test_a_version_that_is_removed_during_its_trial_never_serves(followed: Followed) -> None:
    await followed.start()
    catalog, tried = followed.follower.catalogs["default"], asyncio.Event()
    loop, go_on = asyncio.get_running_loop(), threading.Event()
    followed.trials.during = lambda: (loop.call_soon_threadsafe(tried.set), go_on.wait(10))
    followed.log.deploy(A)
    await tried.wait()
    followed.log.remove(1)
    await followed.until(lambda: catalog.version("m", 1) is None)
    go_on.set()
    await followed.settled()
    assert catalog.version("m", 1) is None
    assert followed.rejected == []


@pytest.mark.parametrize("by", ["nothing", "another"])
async def test_a_model_that_is_replaced_while_it_is_loaded_never_serves(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    await followed.start()
    catalog = followed.follower.catalogs["default"]
    loop, loading, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def load_slowly(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(loading.set)
        go_on.wait(10)
        return load_sum(*arguments)

    monkeypatch.setattr(loader, "load_model", load_slowly)
    followed.log.deploy(A)
    await loading.wait()
    if by == "nothing":
        followed.log.remove(1)
        await followed.until(lambda: catalog.version("m", 1) is None)
    else:
        followed.log.deploy(B)
        await followed.until(lambda: followed.version().manifest.sha256 == digest_of(B))
    with capture_logs() as logs:
        go_on.set()
        await followed.settled()
    assert [v.manifest.sha256 for v in catalog.versions() if v.manifest.model_id == "m"] == (
        [] if by == "nothing" else [digest_of(B)]
    )
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


# Another model under a number that serves


async def test_the_manifest_of_the_first_claim_wins(followed: Followed) -> None:
    claimed, other = manifest_for(A), manifest_for(B)
    followed.log.parts(A)
    for manifest in (claimed, other):
        followed.log.write("models", str(ClaimKey.new(VersionKey("m", 1))).encode(), encode_manifest(manifest))
    followed.log.write("models", str(LeaseKey.new(claimed.sha256)).encode(), encode_manifest(claimed))
    followed.log.manifest(claimed)
    await followed.start()
    followed.log.deploy(B)
    followed.log.manifest(msgspec.structs.replace(claimed, created_at="2030-01-01T00:00:00Z"))
    await followed.settled()
    assert followed.resolve("m:1") == claimed
    assert followed.codes() == ["version_exists"]
    followed.log.remove(1)
    followed.log.manifest(other)
    await followed.start()
    await followed.settled()
    catalogs = [follower.catalogs["default"] for follower in followed.running]
    versions = [catalog.version("m", 1) for catalog in catalogs]
    assert [version.manifest for version in versions if version] == [claimed, claimed]


async def test_claims_of_a_recreated_topic_are_dropped(followed: Followed) -> None:
    followed.log.write("models", str(ClaimKey.new(VersionKey("m", 1))).encode(), encode_manifest(manifest_for(A)))
    await followed.start()
    followed.log.records.clear()
    for stream in ("model-artifacts", "models"):
        followed.follower.read_again(f"ns.default.{stream}")
    followed.log.deploy(B)
    await followed.until_state("ready")
    assert followed.resolve().sha256 == digest_of(B)


async def test_the_old_model_serves_until_the_new_one_of_its_number_is_ready(followed: Followed) -> None:
    followed.log.deploy(A)
    await followed.start()
    followed.log.manifest(manifest_for(B))
    waiting = await followed.until_state("fetching")
    assert waiting.manifest.sha256 == digest_of(B)
    assert followed.resolve("m:1").sha256 == digest_of(A)
    followed.log.parts(B)
    await followed.until_state("ready")
    assert followed.resolve("m:1").sha256 == digest_of(B)


@pytest.mark.parametrize("wrong", ["trial", "bytes"])
async def test_the_old_model_continues_to_serve_if_its_replacement_fails(followed: Followed, wrong: str) -> None:
    followed.log.deploy(A)
    await followed.start()
    if wrong == "trial":
        followed.trials.reasons[B] = "crashed (SIGSEGV)"
        followed.log.deploy(B)
    else:
        followed.log.parts(B[::-1], sha256=digest_of(B))
        followed.log.manifest(manifest_for(B))
    failed = await followed.until_state("failed")
    assert (failed.reason or "").endswith(f"; digest {digest_of(A)} continues to serve")
    assert followed.resolve().sha256 == followed.resolve("m:1").sha256 == digest_of(A)
    followed.log.manifest(manifest_for(A))
    await followed.until_state("ready")
    assert followed.resolve().sha256 == digest_of(A)


async def test_a_verdict_does_not_apply_to_a_model_that_replaced_the_tested_one(followed: Followed) -> None:
    await followed.start()
    loop, tried, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    followed.trials.during = lambda: (loop.call_soon_threadsafe(tried.set), go_on.wait(10))
    followed.trials.reasons[A] = "aborted (SIGABRT)"
    followed.log.deploy(A)
    await tried.wait()
    followed.log.deploy(B)
    await followed.until(lambda: followed.version().manifest.sha256 == digest_of(B))
    go_on.set()
    await followed.until_state("ready")
    assert followed.resolve().sha256 == digest_of(B)
    assert followed.rejected == []


# Rejected records

BAD_MODELS: dict[str, tuple[Stream, bytes | None, bytes | None, str]] = {
    "no key": ("models", None, b"x", "malformed"),
    "no key and no value": ("models", None, None, "malformed"),
    "a key of neither kind": ("models", b"m", b"x", "malformed"),
    "a version 0": ("models", b"m/0", b"x", "malformed"),
    "a name that leaves the directory": ("models", b"../m/1", b"x", "malformed"),
    "no MessagePack": ("models", b"m/3", b"\xc1", "malformed"),
    "an empty value": ("models", b"m/3", b"", "malformed"),
    "another record": ("models", b"m/3", msgspec.msgpack.encode({"version": 3}), "malformed"),
    "an unknown field": (
        "models",
        b"m/3",
        msgspec.msgpack.encode({**msgspec.to_builtins(manifest_for(A, 3)), "colour": "red"}),
        "malformed",
    ),
    "another version than its key's": ("models", b"m/3", encode_manifest(manifest_for(A, 4)), "invalid_value"),
    "a size over the limit": (
        "models",
        b"m/3",
        encode_manifest(msgspec.structs.replace(manifest_for(A, 3), size=10_001)),
        "too_large",
    ),
    "no features": (
        "models",
        b"m/3",
        msgspec.msgpack.encode(msgspec.structs.replace(manifest_for(A, 3), features=[])),
        "schema_mismatch",
    ),
    "a manifest over the limit": ("models", b"m/3", b"x" * 2_001, "too_large"),
    "too deep": ("models", b"m/3", b"\x91" * 100 + b"\x01", "too_deep"),
    "an alias to nowhere": ("models", b"m@champion", msgspec.msgpack.encode(Alias()), "invalid_value"),
    "an alias that is a manifest": ("models", b"m@champion", encode_manifest(manifest_for(A)), "malformed"),
    "a part without a number": ("model-artifacts", digest_of(A).encode(), b"x", "malformed"),
    "a part of no digest": ("model-artifacts", b"../../etc/passwd/0", b"x", "malformed"),
    "a part that is too large": ("model-artifacts", f"{digest_of(A)}/0".encode(), b"x" * 201, "too_large"),
    "a part of a high number": ("model-artifacts", f"{digest_of(A)}/999999".encode(), b"x", "too_large"),
}


@pytest.mark.parametrize("what", BAD_MODELS)
async def test_a_bad_record_is_rejected_once_and_does_not_affect_others(followed: Followed, what: str) -> None:
    stream, key, value, code = BAD_MODELS[what]
    limits = Limits(artifact_bytes_max=10_000, artifact_part_bytes_max=200, manifest_bytes_max=2_000)
    followed.log.deploy(A, 1)
    await followed.start(replace(followed.settings, limits=limits))
    with capture_logs() as logs:
        followed.log.write(stream, key, value)
        followed.log.deploy(B, 2)
        await followed.until_state("ready", 2)
    assert [(record.key, record.value) for record, _ in followed.rejected] == [(key, value)]
    assert followed.codes() == [code]
    (entries,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert (entries["event"], entries["code"]) == ("model_record_rejected", code)
    assert followed.resolve("m:1").version == 1


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("content-type", b"text/plain")], "unsupported_content_type"),
        ([("content-type", b"\xff")], "invalid_header"),
        ([("x", b"y" * 5_000)], "invalid_header"),
    ],
)
async def test_a_record_with_bad_headers_is_rejected(followed: Followed, headers: Any, code: str) -> None:
    followed.log.parts(A)
    followed.log.write("models", b"m/1", encode_manifest(manifest_for(A)), headers=headers)
    await followed.start()
    assert followed.codes() == [code]


async def test_an_unexpected_exception_does_not_end_the_follower(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(value: bytes | None, *rest: Any) -> Any:
        if value == b"poison":
            raise RecursionError
        return decode_manifest(value, *rest)

    monkeypatch.setattr(follower_module, "decode_manifest", buggy)
    followed.log.write("models", b"m/1", b"poison")
    await followed.start()
    followed.log.write("models", b"m/1", b"poison")
    followed.log.deploy(B, 2)
    await followed.until_state("ready", 2)
    assert [(error.code, error.message) for _, error in followed.rejected] == [
        ("internal", "RecursionError while it was read")
    ] * 2


async def test_bytes_of_another_digest_fail_until_they_are_deployed_again(followed: Followed) -> None:
    followed.log.parts(A[::-1], sha256=digest_of(A))
    followed.log.manifest(manifest_for(A))
    with capture_logs() as logs:
        await followed.start()
    assert followed.version().state == "failed"
    assert "have another digest" in (followed.version().reason or "")
    assert followed.codes() == ["malformed"]
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["model_failed"]
    followed.log.deploy(A)
    await followed.until_state("ready")
    assert len(followed.rejected) == 1


# Trials


async def test_a_model_that_fails_its_trial_is_rejected_and_others_serve(followed: Followed) -> None:
    followed.trials.reasons[A] = "aborted (SIGABRT)"
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    with capture_logs() as logs:
        await followed.start()
    assert (followed.version().state, followed.version(2).state) == ("failed", "ready")
    assert followed.version().reason == "the model did not pass its trial: aborted (SIGABRT)"
    with pytest.raises(ModelNotReadyError, match="m:1 is failed: the model did not pass its trial"):
        followed.resolve("m:1")
    ((record, error),) = followed.rejected
    assert (record.key, error.code) == (b"m/1", "internal")
    assert len([entry for entry in logs if entry["log_level"] == "error"]) == 1


async def test_a_failed_version_is_tried_again_when_it_is_deployed_again(followed: Followed) -> None:
    followed.trials.reasons[A] = "did not finish in 60 s"
    followed.log.deploy(A)
    await followed.start()
    del followed.trials.reasons[A]
    followed.log.manifest(manifest_for(A))
    await followed.until_state("ready")


async def test_versions_that_arrive_during_a_trial_are_tested_after_it(followed: Followed) -> None:
    await followed.start()
    followed.trials.during = lambda: followed.log.deploy(B, 2) if len(followed.trials.tried) == 1 else None
    followed.log.deploy(A, 1)
    await followed.until_state("ready", 2)
    assert followed.trials.tried == [[A], [B]]


@pytest.mark.parametrize("why", [ServerError("models cannot be tried: it did not start"), OSError("no more processes")])
async def test_a_trial_that_cannot_run_is_not_the_models_fault(followed: Followed, why: Exception) -> None:
    followed.trials.unavailable = [why] * 3
    followed.log.deploy(A)
    with capture_logs() as logs:
        await followed.start()
        version = followed.version()
        assert (version.state, version.reason) == ("trying", f"{why}; it is retried every 0.01 s")
        assert followed.follower.fault == str(why)
        await followed.until_state("ready")
    assert [follower.fault for follower in followed.running] == [None]
    assert followed.rejected == []
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["model_loader_blocked"], (
        "logged once"
    )


async def test_a_bug_of_the_rollout_does_not_end_the_following(followed: Followed) -> None:
    followed.trials.unavailable = [KeyError()]
    followed.log.deploy(A, 1)
    await followed.start()
    followed.log.alias("champion", Alias(1))
    followed.log.deploy(B, 2)
    await followed.until_state("ready", 2)
    await followed.until_state("ready", 1)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (
            OSError(12, "Cannot allocate memory"),
            "internal",
            "loading failed: OSError: [Errno 12] Cannot allocate memory",
        ),
        (SchemaMismatchError("manifest: outputs is 2"), "schema_mismatch", "manifest: outputs is 2"),
    ],
)
async def test_a_model_that_cannot_be_loaded_fails(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, reason: str
) -> None:
    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(loader, "load_model", broken)
    followed.log.deploy(A)
    await followed.start()
    assert (followed.version().state, followed.version().reason) == ("failed", reason)
    assert followed.codes() == [code]


async def test_versions_of_the_same_file_and_manifest_share_a_trial(followed: Followed) -> None:
    for number, name in enumerate(("a", "b", "c", "d"), 1):
        manifest = manifest_for(A, number, name)
        warmup = [[0.0, 1.0]] if name == "d" else None
        labels = {"run": str(number)}
        followed.log.manifest(msgspec.structs.replace(manifest, labels=labels, warmup=warmup))
    followed.log.deploy(B, 1, "e")
    followed.log.parts(A)
    followed.trials.reasons[B] = "a fault"
    await followed.start()
    assert sorted(followed.trials.tried[0]) == sorted([A, A, B])
    states = {v.manifest.model_id: v.state for v in followed.follower.catalogs["default"].versions()}
    assert states == {"a": "ready", "b": "ready", "c": "ready", "d": "ready", "e": "failed"}


async def test_real_trials_return_verdicts_whatever_a_model_does(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = partial(try_models, child=("-m", "tests.unit.streams.models.scripted_trial"))
    monkeypatch.setattr(loader, "try_models", scripted)
    for number, command in enumerate((b"good", b"hang", b"abort", b"good too?"), 1):
        followed.log.deploy(command, number)
    await followed.start(replace(followed.settings, trial=TrialSettings(timeout_s=3)))
    reasons = [v.reason for v in followed.follower.catalogs["default"].versions()]
    assert reasons[0] is None
    assert reasons[1] == "the model did not pass its trial: did not finish in 3 s"
    assert reasons[2] == "the model did not pass its trial: aborted (SIGABRT)"
    assert followed.resolve().version == 1


def of_sklearn(followed: Followed, data: bytes, version: int) -> None:
    """Deploys a version of another format than `ModelLog.deploy` does."""
    followed.log.parts(data)
    followed.log.manifest(msgspec.structs.replace(manifest_for(data, version), runtime="sklearn"))


async def test_a_slow_import_delays_only_models_of_its_format(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = threading.Event()

    def slow(cases: Sequence[TrialCase], limits: TrialLimits, **more: Any) -> list[Verdict]:
        if any(case.manifest is not None and case.manifest.runtime == "sklearn" for case in cases):
            assert imported.wait(120)
        return followed.trials.try_models(cases, limits, **more)

    monkeypatch.setattr(loader, "try_models", slow)
    await followed.start()
    of_sklearn(followed, b"slow", 1)
    await followed.until_state("trying", 1)
    try:
        for number in (2, 3):
            followed.log.deploy(b"model %d" % number, number)
            await followed.until_state("ready", number)
        of_sklearn(followed, b"slow too", 4)
        await followed.until_state("fetching", 4)
        assert followed.version(1).state == "trying"
    finally:
        imported.set()
    for number in (1, 4):
        await followed.until_state("ready", number)
    assert followed.follower.fault is None


async def test_an_import_beyond_its_limit_fails_no_other_format(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]

    def failing(cases: Sequence[TrialCase], limits: TrialLimits, **more: Any) -> list[Verdict]:
        if broken and any(case.manifest is not None and case.manifest.runtime == "sklearn" for case in cases):
            raise ServerError("models cannot be tried: the trial process did not finish in 120 s")
        return followed.trials.try_models(cases, limits, **more)

    monkeypatch.setattr(loader, "try_models", failing)
    of_sklearn(followed, b"slow", 1)
    followed.log.deploy(b"model", 2)
    await followed.start()
    assert followed.version(2).state == "ready"
    assert "did not finish in 120 s; it is retried" in (followed.version(1).reason or "")
    followed.log.deploy(b"another", 3)
    await followed.until_state("ready", 3)
    assert "did not finish in 120 s" in (followed.follower.fault or "")
    broken.clear()
    await followed.until_state("ready", 1)
    assert followed.follower.fault is None
    assert followed.rejected == []


async def test_a_real_model_is_tried_loaded_and_predicts(
    followed: Followed, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "try_models", try_models)
    monkeypatch.setattr(loader, "load_model", load_model)
    damaged = model.data.replace(b"left_child=", b"left_child=2000000000 ")
    for number, data in enumerate((model.data, damaged), 1):
        sha256 = digest_of(data)
        followed.log.write("model-artifacts", f"{sha256}/0".encode(), data)
        manifest = model.manifest("m", number)
        followed.log.manifest(msgspec.structs.replace(manifest, sha256=sha256, size=len(data)))
    await followed.start()
    served = followed.version().served
    assert served is not None
    rows = np.random.default_rng(3).normal(size=(5, model.n_features))
    predicted = served.runtime.predict(rows, ("prediction",))["prediction"]
    assert predicted.tolist() == model.booster.predict(rows).tolist()
    assert followed.version(2).state == "failed"
    assert followed.resolve().version == 1


# Restarts, and workers side by side


@pytest.mark.parametrize("same_directory", [True, False])
async def test_a_restart_reads_everything_again(followed: Followed, tmp_path: Path, same_directory: bool) -> None:
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    followed.log.deploy(A, 3)
    followed.log.remove(3)
    followed.log.alias("champion", Alias(1))
    followed.log.write("models", b"m/9", b"\xc1")
    first = await followed.start()
    await first.stop()
    settings = followed.settings if same_directory else replace(followed.settings, data_dir=tmp_path / "new")
    second = await followed.start(settings)
    states = [
        [(v.manifest, v.state, v.reason) for v in follower.catalogs["default"].versions()]
        for follower in (first, second)
    ]
    assert states[0] == states[1]
    assert [v.manifest.version for v in second.catalogs["default"].versions()] == [1, 2]
    assert second.catalogs["default"].aliases_of("m", 1) == ("champion",)


async def test_workers_that_share_a_data_directory_serve_the_same(followed: Followed) -> None:
    first, second = await followed.start(), await followed.start()
    for number in range(1, 6):
        followed.log.manifest(manifest_for(b"model %d, and some more bytes" % number, number))
        followed.log.parts(b"model %d, and some more bytes" % number)
    for follower in (first, second):
        await followed.until(lambda: sum(v.state == "ready" for v in follower.catalogs["default"].versions()) == 5)  # noqa: B023
    assert followed.rejected == []


# The disk


@pytest.mark.parametrize("occupied", ["data", "data/artifacts", "data/artifacts/default"])
async def test_a_data_directory_that_cannot_be_used_is_an_error_at_the_start(followed: Followed, occupied: str) -> None:
    path = followed.settings.data_dir.parent / occupied
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(ServerError, match=r"models cannot be stored in .*set INFERD_DATA_DIR to a directory"):
        await followed.start()


async def test_a_disk_that_is_full_at_the_start_is_an_error(followed: Followed, full_disk: list[bool]) -> None:
    followed.log.deploy(A)
    full_disk.append(True)
    with pytest.raises(ServerError, match="No space left on device; free some space"):
        await followed.start()


async def test_a_disk_that_fills_up_later_loses_no_record(followed: Followed, full_disk: list[bool]) -> None:
    followed.log.deploy(A, 1)
    await followed.start()
    full_disk.append(True)
    followed.log.parts(B)
    await followed.until(lambda: "No space left on device" in (followed.follower.fault or ""))
    assert followed.resolve().version == 1, "the earlier version continues to serve"
    full_disk.clear()
    followed.log.manifest(manifest_for(B, 2))
    await followed.until_state("ready", 2)
    assert followed.follower.fault is None


async def test_a_full_disk_while_an_artifact_is_assembled(followed: Followed, full_disk: list[bool]) -> None:
    await followed.start()
    followed.log.parts(A)
    await followed.settled()
    full_disk.append(True)
    followed.log.manifest(manifest_for(A))
    await followed.until(lambda: "No space left on device" in (followed.follower.fault or ""))
    full_disk.clear()
    await followed.until_state("ready")
    assert followed.follower.fault is None


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The disk is full while this list is not empty."""
    state, put_in_place = list[bool](), Path.replace

    def maybe(path: Path, target: Path) -> Path:
        if state:
            raise OSError(28, "No space left on device")
        return put_in_place(path, target)

    monkeypatch.setattr(Path, "replace", maybe)
    return state


# The broker


async def test_a_failed_fetch_is_retried(followed: Followed) -> None:
    await followed.start()
    followed.log.consumers[0].raises = [KafkaConnectionError("gone"), OSError("reset"), KafkaConnectionError("gone")]
    followed.log.deploy(A)
    await followed.until_state("ready")


async def test_an_unexpected_exception_is_reported(followed: Followed) -> None:
    await followed.start()
    followed.log.consumers[0].raises = [RuntimeError("a bug")]
    followed.log.consumers[0].arrived.set()
    await followed.until(lambda: followed.crashes)
    assert [str(crash) for crash in followed.crashes] == ["a bug"]
    followed.crashes.clear()


async def test_a_ping_reports_whether_the_broker_responds(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "PING_TIMEOUT_S", 0.01)
    follower = await followed.start()
    assert follower.reachable_at is None
    assert await follower.ping()
    answered_at = follower.reachable_at
    followed.log.consumers[0].answers = False
    assert not await follower.ping()
    assert follower.reachable_at == answered_at


async def test_a_ping_before_the_start_fails(followed: Followed) -> None:
    follower = follower_module.ModelFollower(followed.settings, lambda record, error: None)
    assert not await follower.ping()
    await follower.stop()


async def test_a_stop_ends_everything(followed: Followed) -> None:
    follower = await followed.start()
    await follower.stop()
    followed.log.deploy(A)
    assert followed.log.consumers[0].stopped
    assert followed.crashes == []
    assert follower.catalogs["default"].versions() == []


async def test_a_failed_check_of_one_artifact_is_reported_and_does_not_delay_others(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, broken = ArtifactStore.complete, True

    def finds(store: ArtifactStore, sha256: str, size: int) -> Any:
        if broken and sha256 == digest_of(A):
            raise PermissionError(13, "Permission denied")
        return complete(store, sha256, size)

    monkeypatch.setattr(ArtifactStore, "complete", finds)
    followed.log.deploy(A, 1)
    followed.log.deploy(B, 2)
    await followed.start()
    await followed.until_state("ready", 2)
    version = followed.version(1)
    assert version.state == "fetching"
    assert "Permission denied; it is retried every" in (version.reason or "")
    assert "Permission denied" in (followed.follower.fault or "")
    broken = False
    await followed.until_state("ready", 1)
    assert followed.follower.fault is None


async def test_a_fault_of_trials_is_reported_while_it_lasts(followed: Followed) -> None:
    followed.trials.unavailable = [KeyError("bug")] * 1_000_000
    followed.log.deploy(A)
    await followed.start()
    version = followed.version()
    assert (version.state, version.reason) == ("trying", "KeyError: 'bug'; it is retried every 0.01 s")
    assert followed.follower.fault == "KeyError: 'bug'"
    followed.trials.unavailable.clear()
    await followed.until_state("ready")


async def test_the_log_names_the_target_of_an_alias(followed: Followed) -> None:
    await followed.start()
    with capture_logs() as logs:
        followed.log.alias("champion", Alias(version=2))
        followed.log.alias("canary", Alias(split=[SplitShare(1, 0.9), SplitShare(2, 0.1)]))
        await followed.until(lambda: len(followed.follower.catalogs["default"].aliases("m")) == 2)
    entries = {entry["alias"]: entry for entry in logs if entry["event"] == "alias_set"}
    assert entries["m@champion"]["version"] == 2
    assert entries["m@canary"]["split"] == [{"version": 1, "weight": 0.9}, {"version": 2, "weight": 0.1}]
