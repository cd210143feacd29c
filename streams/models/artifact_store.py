"""Model artifacts on disk, by SHA-256 digest, assembled from the parts on `model-artifacts`.

File names consist of checked digests and part numbers only. Files are written under a temporary name and then renamed,
so that workers that share the directory never see an incomplete file. All of them use a file that one has assembled.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inferd.schemas.errors import MalformedError, ServerError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.models import ArtifactKey
from inferd.streams.private_directory import private_directory

ASIDE = ".aside-"
ABANDONED_S = 3_600.0
"""A file that was written aside so long ago belongs to a worker that was killed."""
_READ_BYTES = 1_048_576


class ArtifactStore:
    """The complete artifacts on this machine, and the parts of incomplete ones.

    Every method raises `ServerError` with the directory and the cause if the disk fails.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._verified: set[str] = set()
        """Digests of the complete files that were verified."""

    def open(self) -> None:
        """Creates the directory, checks that it is writable, and removes files that a crash left behind."""
        with self._disk():
            private_directory(self._directory)
            with tempfile.TemporaryFile(dir=self._directory) as file:
                file.write(b"\0")
            self._sweep()
            for path in self._directory.glob("*.model"):
                with suppress(FileNotFoundError, MalformedError):
                    self._verify(path)

    def path(self, sha256: str) -> Path:
        """The path of the complete artifact, whether or not it exists."""
        return self._directory / f"{sha256}.model"

    def put(self, key: ArtifactKey, part: bytes) -> None:
        """Stores a part; `TooLargeError` beyond the limits. No effect if the artifact is already complete."""
        if len(part) > self._limits.artifact_part_bytes_max:
            raise TooLargeError(
                f"part {key.part} of artifact {key.sha256} has {len(part)} bytes, "
                f"the limit is {self._limits.artifact_part_bytes_max}"
            )
        if key.part * self._limits.artifact_part_bytes_max >= 2 * self._limits.artifact_bytes_max:
            raise TooLargeError(f"part {key.part} of artifact {key.sha256}: there are too many parts")
        with self._disk():
            if not self.path(key.sha256).exists():
                private_directory(self._directory)
                _write(self._part(key.sha256, key.part), [part])

    def remove(self, sha256: str) -> None:
        """Deletes an artifact and its parts."""
        self._verified.discard(sha256)
        with self._disk():
            self.path(sha256).unlink(missing_ok=True)
            self._remove_parts(sha256)

    def complete(self, sha256: str, size: int) -> Path | None:
        """The file of the complete artifact, with this digest and `size` in bytes; None while parts are missing.

        `MalformedError` if digest or size of the bytes that have arrived do not match.
        """
        path = self.path(sha256)
        with self._disk():
            # At any step another worker may be faster; it removes the parts once it has assembled them.
            if not (path.exists() or self._assemble(sha256, size) or path.exists()):
                return None
            try:
                self._verify(path)
                self._check_size(sha256, path.stat().st_size, size)
            except FileNotFoundError:
                return None
            self._remove_parts(sha256)
        return path

    def forget_verified(self, sha256: str) -> None:
        """Forgets that an artifact was verified, because its file may have been damaged since: `complete` verifies it
        again."""
        self._verified.discard(sha256)

    def bytes_present(self, sha256: str) -> int:
        """How many bytes of an artifact have arrived, up to the first part that is missing."""
        return sum(map(_size, self._part_files(sha256)))

    def _assemble(self, sha256: str, size: int) -> bool:
        parts = self._part_files(sha256)
        have = sum(map(_size, parts))
        if have < size:
            return False
        self._check_size(sha256, have, size)
        try:
            _write(self.path(sha256), _blocks(parts, sha256))
        except FileNotFoundError:
            return False
        self._verified.add(sha256)
        return True

    def _verify(self, path: Path) -> None:
        """Verifies the digest of a file that is not known to be good; deletes it and raises `MalformedError` if it is
        wrong."""
        if path.stem in self._verified:
            return
        if _digest(path) != path.stem:
            path.unlink(missing_ok=True)
            raise MalformedError(f"artifact {path.stem}: its file was damaged on disk; restart to read it again")
        self._verified.add(path.stem)

    def _check_size(self, sha256: str, have: int, size: int) -> None:
        # The parts are kept: the manifest may be wrong, and a later one right.
        if have != size:
            raise MalformedError(
                f"artifact {sha256}: the manifest says {size} bytes, and {have} have arrived; deploy the model again"
            )

    def _part(self, sha256: str, number: int) -> Path:
        return self._directory / f"{sha256}.{number}.part"

    def _part_files(self, sha256: str) -> list[Path]:
        """The parts 0, 1, … up to the first one that is missing."""
        files: list[Path] = []
        while (path := self._part(sha256, len(files))).exists():
            files.append(path)
        return files

    def _remove_parts(self, sha256: str) -> None:
        for path in self._directory.glob(f"{sha256}.*.part"):
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for path in self._directory.glob(f"{ASIDE}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServerError(
                f"models cannot be stored in {self._directory}: {error.strerror or error}; "
                "free some space, or set INFERD_DATA_DIR to a directory that this user may write"
            ) from error


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    """Writes a file under a temporary name, then renames it; leaves nothing behind if `blocks` or the disk fail."""
    handle, name = tempfile.mkstemp(prefix=ASIDE, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for block in blocks:
                file.write(block)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _blocks(parts: Iterable[Path], sha256: str) -> Iterator[bytes]:
    """The bytes of the parts; raises `MalformedError` at the end if their digest is wrong."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(block := part.read_bytes())
        yield block
    if digest.hexdigest() != sha256:
        raise MalformedError(
            f"artifact {sha256}: the bytes on model-artifacts have another digest, {digest.hexdigest()}; "
            "deploy the model again"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
