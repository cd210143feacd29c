"""The jars of Kafka and of the schema registry: the lock files that pin them, and the download cache on disk.

A lock file lists every jar with its SHA-256. No version is resolved at run time; a jar that differs is refused.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from inferd.daemon.broker.errors import BrokerUnavailableError, JarsRejectedError, JarsUnavailableError
from inferd.daemon.broker.file_lock import try_lock, wait_for_lock

DOWNLOADS_AT_ONCE = 6

Fetch = Callable[[str, Path], Path]
"""Downloads one coordinate below a directory and returns the file's path."""


@dataclass(frozen=True, slots=True)
class Product:
    """What is downloaded."""

    name: str
    directory: str
    """Prefix of its directory in the cache."""
    root: str
    """Coordinate of the artifact that gives its version, from the beginning."""

    @property
    def lock_file(self) -> str:
        """Name of its lock file in this package."""
        return f"{self.directory}-jars.lock"


KAFKA = Product("Apache Kafka", "kafka", "org.apache.kafka:kafka_")
APICURIO = Product("Apicurio Registry", "apicurio", "io.apicurio:apicurio-registry-app:")


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked file: a jar, or an archive of jars."""

    coordinate: str
    """`group:artifact:version`, or `group:artifact:version:classifier:type` for what is no plain jar."""
    sha256: str
    size_bytes: int

    @property
    def version(self) -> str:
        return self.coordinate.split(":")[2]

    @property
    def file_name(self) -> str:
        """`artifact-version.jar`, or `artifact-version-classifier.type`."""
        _group, artifact, version, *rest = self.coordinate.split(":")
        classifier, kind = rest or ("", "jar")
        return f"{artifact}-{version}{'-' if classifier else ''}{classifier}.{kind}"


@dataclass(frozen=True, slots=True)
class JarLock:
    """All jars of a product, in class path order."""

    product: Product
    jars: tuple[Jar, ...]
    digest: str

    @property
    def version(self) -> str:
        """Version of the product, such as `4.4.0`."""
        for jar in self.jars:
            if jar.coordinate.startswith(self.product.root):
                return jar.version
        raise ValueError(f"{self.product.lock_file} names no {self.product.root}* jar")

    def directory(self, cache_dir: Path) -> Path:
        """Where its files are."""
        return cache_dir / f"{self.product.directory}-{self.version}-{self.digest[:12]}"


def read_lock(product: Product = KAFKA, text: str | None = None) -> JarLock:
    """The package's lock file of a product, or `text`, parsed: lines of `sha256 bytes coordinate`."""
    if text is None:
        text = resources.files("inferd.daemon.broker").joinpath(product.lock_file).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    rows = [line.split() for line in lines]
    jars = tuple(Jar(coordinate, sha256, int(size)) for sha256, size, coordinate in rows)
    return JarLock(product, jars, hashlib.sha256("\n".join(lines).encode()).hexdigest())


def ensure_jars(
    lock: JarLock, cache_dir: Path, report: Callable[[str], None], fetch: Fetch | None = None
) -> tuple[Path, ...]:
    """Paths of the locked jars, in class path order. Missing and damaged ones are downloaded into `cache_dir`.

    Safe for several processes at once.

    Raises JarsUnavailableError (download failed) and JarsRejectedError (a jar does not match the lock file).
    """
    jar_dir = lock.directory(cache_dir)
    if _missing(lock, jar_dir):
        try:
            jar_dir.mkdir(parents=True, exist_ok=True)
            _download_missing(lock, jar_dir, report, fetch or fetch_with_jgo)
        except OSError as error:
            raise JarsUnavailableError(
                f"{lock.product.name} could not be written to {jar_dir}: {error.strerror}."
                " Choose another cache directory"
            ) from error
    return tuple(jar_dir / jar.file_name for jar in lock.jars)


def fetch_with_jgo(coordinate: str, directory: Path) -> Path:
    """Download one file with jgo, from the repositories that jgo is configured with."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise BrokerUnavailableError(
            f"the embedded broker needs the package jgo ({error}): pip install 'inferd[broker]'"
        ) from error
    maven = MavenContext(repo_cache=directory, timeout=30)
    maven.remote_repos.update(GlobalSettings.load().repositories)
    group, artifact, version, *rest = coordinate.split(":")
    classifier, kind = rest or ("", "jar")
    return Path(maven.project(group, artifact).at_version(version).artifact(classifier, kind).resolve())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(lock: JarLock, jar_dir: Path) -> list[Jar]:
    return [jar for jar in lock.jars if not _is_intact(jar, jar_dir / jar.file_name)]


def _is_intact(jar: Jar, path: Path) -> bool:
    try:
        return path.stat().st_size == jar.size_bytes and sha256_of(path) == jar.sha256
    except OSError:
        return False


@contextmanager
def _one_download_at_a_time(cache_dir: Path, name: str, report: Callable[[str], None]) -> Iterator[None]:
    with (cache_dir / "download.lock").open("w") as file:
        if not try_lock(file.fileno()):
            report(f"another process is downloading {name}: waiting for it")
            wait_for_lock(file.fileno())
        yield


def _download_missing(lock: JarLock, jar_dir: Path, report: Callable[[str], None], fetch: Fetch) -> None:
    name = lock.product.name
    with _one_download_at_a_time(jar_dir.parent, name, report):
        jars = _missing(lock, jar_dir)
        if not jars:
            return
        report(f"downloading {name} {lock.version}, once: {_count(jars)}, {_megabytes(jars):.0f} MB")
        staging = jar_dir.parent / "download"
        shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
        staging.mkdir()
        try:
            _download(jars, staging, jar_dir, report, fetch)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _download(jars: Sequence[Jar], staging: Path, jar_dir: Path, report: Callable[[str], None], fetch: Fetch) -> None:
    total_mb, done, said_mb = _megabytes(jars), [], 0.0
    pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE)
    try:
        pending = {pool.submit(_download_one, jar, staging, jar_dir, fetch): jar for jar in jars}
        for future in as_completed(pending):
            future.result()
            done.append(pending[future])
            if _megabytes(done) - said_mb >= total_mb / 4:
                said_mb = _megabytes(done)
                report(f"downloaded {said_mb:.0f} of {total_mb:.0f} MB")
    finally:
        pool.shutdown(cancel_futures=True)


def _count(jars: Sequence[Jar]) -> str:
    return f"{len(jars)} jars" if len(jars) > 1 else "1 file"


def _megabytes(jars: Sequence[Jar]) -> float:
    return sum(jar.size_bytes for jar in jars) / 1e6


def _download_one(jar: Jar, staging: Path, jar_dir: Path, fetch: Fetch) -> None:
    try:
        path = fetch(jar.coordinate, staging)
    except (OSError, RuntimeError) as error:
        raise JarsUnavailableError(
            f"could not download {jar.coordinate}: {error}. The first start needs network access;"
            " to use another Kafka instead, set INFERD_BROKER to its address"
        ) from error
    found = sha256_of(path)
    if found != jar.sha256:
        raise JarsRejectedError(
            f"{jar.coordinate} was rejected: its SHA-256 is {found}, expected {jar.sha256}."
            " Check the Maven repository or proxy"
        )
    path.replace(jar_dir / jar.file_name)
