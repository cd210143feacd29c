"""Model bytes on disk, by digest: collected from the parts that `model-artifacts` brings.

Names of files are made of checked digests and part numbers only. Files are written aside and renamed, so that workers
that share the directory never see half a file; what one of them has put together, all of them use.
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
    """The artifacts that one machine has, and the parts of those that are not complete yet.

    Every method raises `ServerError`, saying which directory and why, where the disk does not do its part.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._verified: set[str] = set()
        """Digests of whole files that are known to be what their names say."""

    def open(self) -> None:
        """Makes the directory, sees that it can be written, and forgets what a crash or a bad disk left behind."""
        with self._disk():
            private_directory(self._directory)
            with tempfile.TemporaryFile(dir=self._directory) as file:
                file.write(b"\0")
            self._sweep()
            for path in self._directory.glob("*.model"):
                with suppress(FileNotFoundError, MalformedError):
                    self._verify(path)

    def path(self, sha256: str) -> Path:
        """Where the whole artifact is, or will be."""
        return self._directory / f"{sha256}.model"

    def put(self, key: ArtifactKey, part: bytes) -> None:
        """Keeps a part; `TooLargeError` over the limits. Nothing to do where the artifact is already whole."""
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
        """Forgets an artifact and its parts."""
        self._verified.discard(sha256)
        with self._disk():
            self.path(sha256).unlink(missing_ok=True)
            self._remove_parts(sha256)

    def complete(self, sha256: str, size: int) -> Path | None:
        """The file of a whole artifact whose bytes are what digest and size say; None while parts are missing.

        `MalformedError` where what has arrived cannot become that.
        """
        path = self.path(sha256)
        with self._disk():
            # Another worker may be quicker at any step, and takes the parts away once it has put them together.
            if not (path.exists() or self._assemble(sha256, size) or path.exists()):
                return None
            try:
                self._verify(path)
                self._check_size(sha256, path.stat().st_size, size)
            except FileNotFoundError:
                return None
            self._remove_parts(sha256)
        return path

    def doubt(self, sha256: str) -> None:
        """The file of an artifact may have been damaged since it was verified: `complete` verifies it again."""
        self._verified.discard(sha256)

    def have_bytes(self, sha256: str) -> int:
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
        """Reads a whole file once: another worker made it, or nobody has looked at it yet."""
        if path.stem in self._verified:
            return
        if _digest(path) != path.stem:
            path.unlink(missing_ok=True)
            raise MalformedError(f"artifact {path.stem}: its file was damaged on disk; restart to read it again")
        self._verified.add(path.stem)

    def _check_size(self, sha256: str, have: int, size: int) -> None:
        # It may be the manifest that is wrong, and another one right: what is here stays.
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
                f"models cannot be kept in {self._directory}: {error.strerror or error}; "
                "make room there, or set INFERD_DATA_DIR to a directory that this user may write"
            ) from error


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    """Writes a file aside and puts it in place; leaves nothing where `blocks` or the disk fail."""
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
    """The bytes of parts; `MalformedError` at their end where they do not have that digest."""
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
