"""Models in a directory: `<name>/<version>/{model.txt,manifest.json}` and `<name>/aliases.json`.

Changes by other processes are seen on the next access. A version is loaded on first use. Before that it is tried in a
disposable subprocess, because a bad model file can crash the process that loads it.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from pathlib import Path

import structlog

from inferd.schemas.codec import decode_manifest
from inferd.schemas.codecs import JSON
from inferd.schemas.errors import (
    InferenceError,
    InternalError,
    InvalidIdError,
    MalformedError,
    ServerError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.models import Alias, Manifest, check_model_name
from inferd.schemas.requests import ModelReference
from inferd.streams.inference import ModelCatalog, ServedModel, TrialLimits, Version, load_model, read_model, reconcile
from inferd.streams.models.trial import TrialCase, try_models
from inferd.streams.openmp import load_openmp
from inferd.streams.serving.alias_file import read_aliases

MODEL_FILE, MANIFEST_FILE, ALIASES_FILE = "model.txt", "manifest.json", "aliases.json"
WAITING = "it is loaded on first use"
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_MTIME_RESOLUTION_S = 1.0
"""Resolution of directory mtimes: within this time after a change, another change may not alter the mtime."""
log = structlog.get_logger(__name__)


class DirectoryCatalog(ModelCatalog):
    """The models of one tenant in a directory. Thread-safe."""

    def __init__(self, directory: Path, limits: Limits, threads: int = 1) -> None:
        """`threads` per prediction."""
        super().__init__()
        self.directory = directory
        self._limits, self._threads = limits, threads
        self._lock = threading.RLock()
        self._loading: dict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)
        self._read_at: dict[str, tuple[int, float]] = {}
        """By name: the directory's mtime (ns) when it was read, and the time of reading."""
        self._failures: dict[tuple[str, int], InferenceError] = {}
        self._tried: set[str] = set()
        """Digests of model files that have passed a trial in this process."""

    def folder(self, name: str) -> Path:
        """The directory of a model's versions; `InvalidIdError` for an invalid name."""
        return self.directory / check_model_name(name)

    def versions(self) -> list[Version]:
        """All versions, loaded or not, by name and number."""
        for name in {*self._names(), *self._read_at}:
            self.refresh(name)
        with self._lock:
            return super().versions()

    def alias_behind(self, reference: ModelReference) -> Alias | None:
        self.refresh(reference.name)
        return super().alias_behind(reference)

    def resolve(self, reference: ModelReference, routing_key: bytes = b"") -> ServedModel:
        """Like `ModelCatalog.resolve`, but loads the version if necessary; raises the reason if it cannot be loaded."""
        self.refresh(reference.name)
        with self._lock:
            candidates = self.candidates(reference, routing_key)
        failure: InferenceError | None = None
        for version in candidates:
            try:
                return version.served or self._load(version)
            except InferenceError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    def passed_trial(self, manifest: Manifest) -> None:
        """Record that this model file has passed its trial, so that loading it skips the trial."""
        self._tried.add(manifest.sha256)

    def refresh(self, name: str) -> None:
        """Read a model's directory again if it has changed."""
        folder = self.folder(name)
        try:
            changed_ns = folder.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            changed_ns = 0
        except OSError as error:
            raise store_error(folder, error) from error
        with self._lock:
            seen_ns, read_at = self._read_at.get(name, (-1, 0.0))
            if changed_ns == seen_ns and read_at - changed_ns / 1e9 > _MTIME_RESOLUTION_S:
                return
            now = time.time()
            self._read(name, folder)
            if changed_ns:
                self._read_at[name] = changed_ns, now
            else:
                self._read_at.pop(name, None)

    def _read(self, name: str, folder: Path) -> None:
        numbers = {int(path.name) for path in _entries(folder) if _VERSION.fullmatch(path.name)}
        known = {
            version.manifest.version: version for version in super().versions() if version.manifest.model_id == name
        }
        for number in known.keys() - numbers:
            self.remove(name, number)
            self._failures.pop((name, number), None)
        for number in sorted(numbers):
            self._read_version(name, number, known.get(number))
        aliases = read_aliases(folder / ALIASES_FILE)
        for alias in self.aliases(name).keys() - aliases.keys():
            self.put_alias(name, alias, None)
        for alias, target in aliases.items():
            self.put_alias(name, alias, target)

    def _read_version(self, name: str, number: int, known: Version | None) -> None:
        path = self.folder(name) / str(number) / MANIFEST_FILE
        try:
            manifest = decode_manifest(path.read_bytes(), self._limits, JSON)
            if (manifest.model_id, manifest.version) != (name, number):
                raise MalformedError(f"this is the manifest of {manifest.model_id}:{manifest.version}")
        except (OSError, InferenceError) as error:
            log.warning("manifest_unreadable", path=str(path), reason=str(error))
            self.remove(name, number)
            return
        if known is None or known.manifest != manifest:
            self._failures.pop((name, number), None)
            self.put(Version(manifest, "fetching", WAITING))

    def _load(self, version: Version) -> ServedModel:
        manifest = version.manifest
        key = manifest.model_id, manifest.version
        with self._lock:
            loading = self._loading[key]
        with loading:
            current = self.version(*key)
            if current is not None and current.served is not None:
                return current.served
            if (failure := self._failures.get(key)) is not None:
                raise type(failure)(failure.message)
            return self._try_and_load(manifest)

    def _try_and_load(self, manifest: Manifest) -> ServedModel:
        path = self.folder(manifest.model_id) / str(manifest.version) / MODEL_FILE
        try:
            if manifest.sha256 not in self._tried:
                try_model(path, manifest, self._limits)
                self.passed_trial(manifest)
            load_openmp()
            served = load_model(path, manifest, self._threads, self._limits)
        except (InferenceError, OSError) as error:
            raise self._fail(manifest, error) from None
        with self._lock:
            self.put(Version(manifest, "ready", None, served))
        log.info("model_loaded", model=manifest.model_id, version=manifest.version, digest=manifest.sha256)
        return served

    def _fail(self, manifest: Manifest, fault: InferenceError | OSError) -> InferenceError:
        """Record why a version cannot be loaded; it is not retried until its files change."""
        name = f"{manifest.model_id}:{manifest.version}"
        reason = fault.message if isinstance(fault, InferenceError) else str(fault)
        error_type = type(fault) if isinstance(fault, InferenceError) else InternalError
        error = error_type(f"{name} cannot be loaded: {reason}; register another version")
        with self._lock:
            self._failures[manifest.model_id, manifest.version] = error
            self.put(Version(manifest, "failed", reason))
        log.error("model_failed", model=manifest.model_id, version=manifest.version, reason=reason)
        return error

    def _names(self) -> list[str]:
        return [path.name for path in _entries(self.directory) if _is_name(path.name)]


def try_model(model: Path | bytes, manifest: Manifest, limits: Limits) -> None:
    """Load and run a model in a disposable subprocess; `InferenceError` with the reason if it fails."""
    (verdict,) = try_models([TrialCase(model, manifest)], TrialLimits(sizes=limits))
    if verdict.ok:
        return
    # The verdict is only text. If the model file itself is invalid, these checks raise the typed error.
    content = model if isinstance(model, bytes) else model.read_bytes()
    reconcile(manifest, read_model(content, limits, manifest.runtime))
    raise InternalError(f"the model did not pass its trial in a subprocess: {verdict.reason}")


def store_error(path: Path, error: OSError) -> ServerError:
    """The error for a directory of models that cannot be read or written."""
    return ServerError(
        f"cannot access the model directory {path}: {error.strerror or error}; use a directory that this user may write"
    )


def _is_name(name: str) -> bool:
    try:
        check_model_name(name)
    except InvalidIdError:
        return False
    return True


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise store_error(folder, error) from error
