"""Brings announced versions into service: waits for the artifact, tests it in a disposable subprocess, and loads it.

Until then, or if that fails, the previous version serves. Each format has its own trials, so that a library that is
slow to import only delays the models of its format.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from inferd.schemas.codec import encode_manifest
from inferd.schemas.errors import InferenceError, InternalError, ServerError, TooLargeError
from inferd.schemas.models import Manifest, VersionKey
from inferd.streams.inference import (
    ModelCatalog,
    State,
    Version,
    accelerated,
    is_format,
    load_model,
    use_kernels,
)
from inferd.streams.lane import describe
from inferd.streams.models.artifact_store import ArtifactStore
from inferd.streams.models.on_demand import UNLOADED, OnDemandLoader
from inferd.streams.models.rejections import ModelRecord, OnRejected
from inferd.streams.models.trial import TrialCase, Verdict, try_models
from inferd.streams.openmp import load_openmp
from inferd.streams.settings import StreamSettings

log = structlog.get_logger(__name__)

DISK_RETRY_S = 1.0
TRIAL_RETRY_S = 5.0
"""Delay before retrying a trial that could not run for a reason other than the model."""
_UNKNOWN, _FILES = "?", "/"
"""Keys of faults that do not belong to a format: versions of unknown formats, and the files of models."""
TRIAL_PROCESSES_MAX = 2
"""Maximum number of concurrent trials: each takes the memory of a library."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A version that is not yet loaded, and the record that announced it."""

    tenant: str
    manifest: Manifest
    record: ModelRecord

    @property
    def key(self) -> tuple[str, str, int]:
        return self.tenant, self.manifest.model_id, self.manifest.version


_Found = tuple[_Waiting, Path]
Found = Path | Exception | int
"""An artifact: its file, the error of the file or of checking it, or the number of its bytes that have arrived."""


class ModelLoader:
    """Tests and loads announced versions that are not yet serving, for all tenants."""

    def __init__(
        self,
        settings: StreamSettings,
        catalogs: Mapping[str, ModelCatalog],
        stores: Mapping[str, ArtifactStore],
        on_rejected: OnRejected,
        on_demand: OnDemandLoader,
        on_loaded: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`on_rejected` is called with the record of each version that fails its trial, `on_loaded` with the seconds
        since the start of the trial, once a version that passed it was loaded or left to load on demand. Versions that
        do not fit into memory are passed to `on_demand`."""
        self._limits = settings.limits
        self._bytes_max = settings.models.bytes_max
        self._trial = settings.trial.limits(settings.limits)
        self._predict_threads = settings.predict_threads
        use_kernels(settings.kernels == "auto")
        self._on_demand = on_demand
        self._catalogs, self._stores, self._on_rejected, self._on_loaded = catalogs, stores, on_rejected, on_loaded
        self._waiting: dict[tuple[str, str, int], _Waiting] = {}
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._threads = _one_thread()
        self._format_threads: dict[str, ThreadPoolExecutor] = {}
        """Threads in which models of a format are tried and loaded."""
        self._faults: dict[str, str] = {}
        """Why versions are delayed, if the cause is not a model, by format; `_FILES`: a cause that concerns their
        artifacts."""
        self._slots = asyncio.Semaphore(TRIAL_PROCESSES_MAX)
        self._trials: dict[str, asyncio.Task[None]] = {}
        """The running trial of each format."""

    @property
    def fault(self) -> str | None:
        """Why versions are delayed, if the cause is not a model; None otherwise."""
        return next(iter(self._faults.values()), None)

    def add(self, tenant: str, manifest: Manifest, record: ModelRecord) -> None:
        """Adds a version that is to serve. No effect if it is already known."""
        catalog = self._catalogs[tenant]
        earlier = catalog.version(manifest.model_id, manifest.version)
        if earlier is not None and earlier.manifest == manifest and earlier.state != "failed":
            return
        served, loadable = (earlier.served, earlier.loadable) if earlier is not None else (None, None)
        catalog.put(Version(manifest, "fetching", "its artifact is being looked up", served, loadable))
        waiting = _Waiting(tenant, manifest, record)
        self._waiting[waiting.key] = waiting
        log.info(
            "model_announced", tenant=tenant, model=manifest.model_id, version=manifest.version, digest=manifest.sha256
        )

    def remove(self, tenant: str, key: VersionKey) -> None:
        """Removes a version that was to serve."""
        self._waiting.pop((tenant, key.model_id, key.version), None)
        self._on_demand.forget((tenant, key.model_id, key.version))

    def wake(self) -> None:
        """Wakes `run`: a part or record that a version may be waiting for has arrived."""
        self._changed.set()

    async def run(self) -> None:
        """Starts trials after each wake-up, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._start_trials()
            except ServerError as error:
                self._retry_later(_FILES, error.message, DISK_RETRY_S)

    def close(self) -> None:
        """Shuts down without waiting for a running trial process, which ends by its own time limit."""
        for trial in self._trials.values():
            trial.cancel()
        for threads in (self._threads, *self._format_threads.values()):
            threads.shutdown(wait=False, cancel_futures=True)

    async def advance(self) -> None:
        """Advances every version as far as possible: complete versions of the same format are tested together.

        `ServerError` if the disk fails. Trials that cannot run, and versions that fail unexpectedly, are retried later;
        the reason is shown with the versions.
        """
        await asyncio.gather(*self._trials.values())
        await self._start_trials()
        await asyncio.gather(*self._trials.values())

    async def _start_trials(self) -> None:
        """Starts a trial for each format that has none running."""
        async with self._turn:
            complete = await self._complete()
        by_format: dict[str, list[_Found]] = {}
        for each, path in complete:
            by_format.setdefault(_format_of(each), []).append((each, path))
        self._faults = {name: fault for name, fault in self._faults.items() if name in (*by_format, _FILES)}
        for name, found in by_format.items():
            if name not in self._trials:
                self._trials[name] = asyncio.create_task(self._run_trial(name, found))

    async def _run_trial(self, name: str, found: list[_Found]) -> None:
        """Runs the trial of a format; a trial that fails unexpectedly is reported and retried."""
        try:
            await self._try_and_serve(name, found)
        except Exception as fault:
            log.exception("model_loader_fault")
            self._report(name, describe(fault))
        finally:
            del self._trials[name]
        tried = {each for each, _ in found}
        if name in self._faults:
            asyncio.get_running_loop().call_later(TRIAL_RETRY_S, self._changed.set)
        if any(each not in tried and _format_of(each) == name for each in self._waiting.values()):
            self._changed.set()

    async def _complete(self) -> list[_Found]:
        """The versions whose artifacts are complete; the reason to wait is recorded for the others."""
        waiting = sorted(self._waiting.values(), key=lambda version: version.key)
        complete, faults = [], list[Exception]()
        for each, found in zip(waiting, await self.in_thread(self._find, waiting), strict=True):
            if isinstance(found, Path):
                complete.append((each, found))
            elif isinstance(found, InferenceError):
                self._fail(each, found)
            elif isinstance(found, Exception):
                faults.append(found)
                self._wait(each, "fetching", found)
            else:
                self._note(each, "fetching", f"{found} of {each.manifest.size} bytes of its artifact have arrived")
        complete = [(each, path) for each, path in complete if self._is_wanted(each)]
        if faults:
            self._retry_later(_FILES, _reason(faults[0]), TRIAL_RETRY_S)
        else:
            self._faults.pop(_FILES, None)
        return complete

    async def in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Runs `function` in the thread that reads and writes model files; returns its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _in_thread_of(self, name: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Runs `function` in the thread that tests and loads models of a format; returns its result."""
        threads = self._format_threads.get(name) or self._format_threads.setdefault(name, _one_thread())
        return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    def _find(self, waiting: Sequence[_Waiting]) -> list[Found]:
        found: list[Found] = []
        for each in waiting:
            store, manifest = self._stores[each.tenant], each.manifest
            try:
                path = store.complete(manifest.sha256, manifest.size)
            except ServerError:
                raise
            except Exception as error:  # a failure of one version must not delay the others
                if not isinstance(error, InferenceError):
                    log.exception("model_loader_fault", tenant=each.tenant, model=manifest.model_id)
                found.append(error)
            else:
                found.append(store.bytes_present(manifest.sha256) if path is None else path)
        return found

    async def _try_and_serve(self, name: str, complete: Sequence[_Found]) -> None:
        started = time.perf_counter()
        for waiting, _ in complete:
            self._note(waiting, "trying", "it is being tested in a subprocess")
        try:
            cases = [TrialCase(path, each.manifest) for each, path in complete]
            async with self._slots:
                verdicts = await self._in_thread_of(name, self._try, cases)
        except Exception as error:  # a fault of a model is in its verdict, not an exception
            if not isinstance(error, ServerError | OSError):
                log.exception("model_loader_fault")
            self._report(name, _reason(error))
            for waiting, _ in complete:
                self._wait(waiting, "trying", error)
            return
        self._faults.pop(name, None)
        passed = []
        for (waiting, path), verdict in zip(complete, verdicts, strict=True):
            if verdict.ok:
                passed.append((waiting, path, verdict.resident_bytes))
            else:
                self._fail(waiting, InternalError(f"the model did not pass its trial: {verdict.reason or ''}"))
        for waiting, path, n_bytes in sorted(passed, key=lambda each: not self._has_alias(each[0])):
            if self._is_wanted(waiting):
                await self._admit(waiting, path, n_bytes)
                self._on_loaded(time.perf_counter() - started)

    def _try(self, cases: Sequence[TrialCase]) -> list[Verdict]:
        """The verdict on each case. Versions with the same input of the trial share a verdict."""
        contents = [(case.model, _tried(case.manifest)) for case in cases]
        distinct = dict(zip(contents, cases, strict=True))
        verdicts = try_models(list(distinct.values()), self._trial, measure=self._on_demand.bounded)
        verdict_of = dict(zip(distinct, verdicts, strict=True))
        return [verdict_of[content] for content in contents]

    def _has_alias(self, waiting: _Waiting) -> bool:
        """Whether an alias points at a version: these are loaded first."""
        manifest = waiting.manifest
        return bool(self._catalogs[waiting.tenant].aliases_of(manifest.model_id, manifest.version))

    async def _admit(self, waiting: _Waiting, path: Path, n_bytes: int) -> None:
        """Loads a version if there is room; otherwise its first request does."""
        if 0 < self._bytes_max < n_bytes:
            message = f"it takes {n_bytes} bytes of memory, INFERD_MODELS_BYTES_MAX allows {self._bytes_max}"
            self._fail(waiting, TooLargeError(message))
        elif self._on_demand.admit(waiting.key, n_bytes, has_alias=self._has_alias(waiting)):
            await self._serve(waiting, path)
        else:
            del self._waiting[waiting.key]
            manifest = waiting.manifest
            self._catalogs[waiting.tenant].put(Version(manifest, "unloaded", UNLOADED, None, manifest))
            log.info("model_unloaded", tenant=waiting.tenant, model=manifest.model_id, version=manifest.version)

    async def _serve(self, waiting: _Waiting, path: Path) -> None:
        manifest = waiting.manifest
        try:
            await self.in_thread(load_openmp)
            served = await self._in_thread_of(
                manifest.runtime, load_model, path, manifest, self._predict_threads, self._limits
            )
        except InferenceError as error:
            self._fail(waiting, error)
            return
        except Exception as fault:
            log.exception("model_load_fault", tenant=waiting.tenant, model=manifest.model_id, version=manifest.version)
            self._fail(waiting, InternalError(f"loading failed: {type(fault).__name__}: {fault}"))
            return
        if not self._is_wanted(waiting):
            return
        del self._waiting[waiting.key]
        self._on_demand.loaded()
        loadable = manifest if self._on_demand.bounded else None
        self._catalogs[waiting.tenant].put(Version(manifest, "ready", None, served, loadable))
        log.info(
            "model_ready", tenant=waiting.tenant, model=manifest.model_id, version=manifest.version,
            digest=manifest.sha256,
        )  # fmt: skip
        if (fast := accelerated(served.runtime)) is not None and (unused := fast.kernel_fault):
            log.info(
                "kernel_unused", tenant=waiting.tenant, model=manifest.model_id, version=manifest.version, reason=unused
            )

    def _fail(self, waiting: _Waiting, error: InferenceError) -> None:
        if not self._is_wanted(waiting):
            return
        manifest = waiting.manifest
        version = self._catalogs[waiting.tenant].version(manifest.model_id, manifest.version)
        former = _serving(version)
        if former is None:
            self._on_demand.forget(waiting.key)
        still = f"; digest {former.sha256} continues to serve" if former is not None else ""
        self._note(waiting, "failed", error.message + still)
        del self._waiting[waiting.key]
        log.error(
            "model_failed", tenant=waiting.tenant, model=manifest.model_id, version=manifest.version,
            code=error.code, reason=error.message,
        )  # fmt: skip
        self._on_rejected(waiting.record, error)

    def _wait(self, waiting: _Waiting, state: State, error: Exception) -> None:
        self._note(waiting, state, f"{_reason(error)}; it is retried every {TRIAL_RETRY_S:g} s")

    def _note(self, waiting: _Waiting, state: State, reason: str) -> None:
        """Records the state and reason of a version in the catalog, if the version is still wanted."""
        catalog, manifest = self._catalogs[waiting.tenant], waiting.manifest
        version = catalog.version(manifest.model_id, manifest.version)
        if self._is_wanted(waiting) and version is not None and (version.state, version.reason) != (state, reason):
            catalog.set_state(version, state, reason)

    def _is_wanted(self, waiting: _Waiting) -> bool:
        """Whether the version has been neither replaced nor removed since it was announced."""
        return self._waiting.get(waiting.key) is waiting

    def _retry_later(self, name: str, why: str, retry_s: float) -> None:
        self._report(name, why)
        asyncio.get_running_loop().call_later(retry_s, self._changed.set)

    def _report(self, name: str, why: str) -> None:
        if why != self._faults.get(name):
            log.error("model_loader_blocked", reason=why)
        self._faults[name] = why


def _serving(version: Version | None) -> Manifest | None:
    """The manifest that requests for a version are scored with: of the loaded model, or of one that can be loaded."""
    if version is None:
        return None
    return version.served.manifest if version.served is not None else version.loadable


def _tried(manifest: Manifest | None) -> bytes:
    """The manifest without the fields that do not affect a trial."""
    if manifest is None:
        return b""
    return encode_manifest(
        msgspec.structs.replace(manifest, model_id="trial", version=1, cache=None, labels=None, created_at=None)
    )


def _format_of(waiting: _Waiting) -> str:
    runtime = waiting.manifest.runtime
    return runtime if is_format(runtime) else _UNKNOWN


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="inferd-models")


def _reason(error: Exception) -> str:
    """The reason why a version waits: the error message of this machine, or a description of an unexpected
    exception."""
    return str(error) if isinstance(error, ServerError | OSError) else describe(error)
