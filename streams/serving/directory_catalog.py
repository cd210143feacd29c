"""Models in a directory: `<name>/<version>/{model.txt,manifest.json}` and `<name>/aliases.json`.

What other processes add to the directory is seen at the next use. A version is loaded when it is first asked for: it is
tried in a disposable subprocess before, as a bad model file can take a whole process down.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from pathlib import Path

import structlog

from inferd.schemas.codec import decode_manifest
from inferd.schemas.errors import (
    InferenceError,
    InternalError,
    InvalidIdError,
    MalformedError,
    ServerError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.models import Manifest, check_model_name
from inferd.schemas.requests import ModelReference
from inferd.streams.inference import ModelCatalog, ServedModel, TrialLimits, Version, load_model, reconcile
from inferd.streams.inference.formats.lightgbm import read_model_file
from inferd.streams.models.trial import TrialCase, try_models
from inferd.streams.serving.alias_file import read_aliases

MODEL_FILE, MANIFEST_FILE, ALIASES_FILE = "model.txt", "manifest.json", "aliases.json"
WAITING = "it is loaded when it is first asked for"
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_SETTLED_S = 1.0
"""A directory that changed so recently may change again without its time stamp saying so."""
log = structlog.get_logger(__name__)


class DirectoryCatalog(ModelCatalog):
    """The models of one tenant, from a directory; any thread may use it."""

    def __init__(self, directory: Path, limits: Limits, threads: int = 1) -> None:
        """`threads`: of one prediction."""
        super().__init__()
        self.directory = directory
        self._limits, self._threads = limits, threads
        self._lock = threading.RLock()
        self._loading: dict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)
        self._read_at: dict[str, tuple[int, float]] = {}
        """By name: the directory's time stamp when it was read, and when that was."""
        self._failures: dict[tuple[str, int], InferenceError] = {}
        self._tried: set[str] = set()
        """Digests of what has passed its trial in this process."""

    def folder(self, name: str) -> Path:
        """Where the versions of a model are; `InvalidIdError` for what is no name."""
        return self.directory / check_model_name(name)

    def versions(self) -> list[Version]:
        """Every version that is there, loaded or not, by name and number."""
        for name in {*self._names(), *self._read_at}:
            self.refresh(name)
        with self._lock:
            return super().versions()

    def splits(self, reference: ModelReference) -> bool:
        self.refresh(reference.name)
        return super().splits(reference)

    def resolve(self, reference: ModelReference, routing_key: bytes = b"") -> ServedModel:
        """As `ModelCatalog.resolve`, but that a version is loaded where it is not yet; raises why it cannot be."""
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
        """Notes that these bytes have been tried, so that they need not be before they are loaded."""
        self._tried.add(manifest.sha256)

    def refresh(self, name: str) -> None:
        """Reads what the directory says of a model, unless nothing has changed since."""
        folder = self.folder(name)
        try:
            changed_ns = folder.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            changed_ns = 0
        except OSError as error:
            raise unreadable(folder, error) from error
        with self._lock:
            seen_ns, read_at = self._read_at.get(name, (-1, 0.0))
            if changed_ns == seen_ns and read_at - changed_ns / 1e9 > _SETTLED_S:
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
            manifest = decode_manifest(path.read_bytes(), self._limits, "json")
            if (manifest.model_id, manifest.version) != (name, number):
                raise MalformedError(f"it is the manifest of {manifest.model_id}:{manifest.version}")
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
            served = load_model(path, manifest, self._threads, self._limits)
        except (InferenceError, OSError) as error:
            raise self._fail(manifest, error) from None
        with self._lock:
            self.put(Version(manifest, "ready", None, served))
        log.info("model_loaded", model=manifest.model_id, version=manifest.version, digest=manifest.sha256)
        return served

    def _fail(self, manifest: Manifest, fault: InferenceError | OSError) -> InferenceError:
        """Notes why a version cannot be loaded: it is not tried again until its files change."""
        name = f"{manifest.model_id}:{manifest.version}"
        words = fault.message if isinstance(fault, InferenceError) else str(fault)
        kind = type(fault) if isinstance(fault, InferenceError) else InternalError
        error = kind(f"{name} cannot be loaded: {words}; register another version")
        with self._lock:
            self._failures[manifest.model_id, manifest.version] = error
            self.put(Version(manifest, "failed", words))
        log.error("model_failed", model=manifest.model_id, version=manifest.version, reason=words)
        return error

    def _names(self) -> list[str]:
        return [path.name for path in _entries(self.directory) if _is_name(path.name)]


def try_model(model: Path | bytes, manifest: Manifest, limits: Limits) -> None:
    """Loads and runs a model in a disposable subprocess; `InferenceError` saying why where it does not pass."""
    (verdict,) = try_models([TrialCase(model, manifest)], TrialLimits(sizes=limits))
    if verdict.ok:
        return
    # The verdict is words alone; where reading the file says the same, its error has the type.
    reconcile(manifest, read_model_file(model if isinstance(model, bytes) else model.read_bytes(), limits))
    raise InternalError(f"the model did not pass its trial in a subprocess: {verdict.reason}")


def unreadable(path: Path, error: OSError) -> ServerError:
    """The error where the store itself does not do its part."""
    return ServerError(
        f"models cannot be kept in {path}: {error.strerror or error}; name a directory that this user may write"
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
        raise unreadable(folder, error) from error
