"""Model bytes on disk, by digest: collected from the parts that `model-artifacts` brings.

Names of files are made of checked digests and part numbers only. Files are written aside and renamed, so that workers
that share the directory never see half a file.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from schemas.errors import MalformedError, TooLargeError
from schemas.limits import Limits
from schemas.models import ArtifactKey

_READ_BYTES = 1_048_576


class ArtifactStore:
    """The artifacts that one machine has, and the parts of those that are not complete yet."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        directory.mkdir(parents=True, exist_ok=True)

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
        if not self.path(key.sha256).exists():
            parts = self._parts(key.sha256)
            parts.mkdir(exist_ok=True)
            _write(parts / str(key.part), part)

    def remove(self, sha256: str) -> None:
        """Forgets an artifact and its parts."""
        self.path(sha256).unlink(missing_ok=True)
        shutil.rmtree(self._parts(sha256), ignore_errors=True)

    def complete(self, sha256: str, size: int) -> Path | None:
        """The file of a whole artifact whose bytes are what digest and size say; None while parts are missing.

        `MalformedError` where as many bytes as announced are there, but not those; they are given up.
        """
        path = self.path(sha256)
        if not path.exists() and not self._assemble(sha256, size):
            return None
        if path.stat().st_size != size or _digest(path) != sha256:
            self.remove(sha256)
            raise MalformedError(
                f"artifact {sha256}: the bytes on model-artifacts have another digest or size than the manifest says; "
                "deploy the model again"
            )
        return path

    def have_bytes(self, sha256: str) -> int:
        """How many bytes of an artifact have arrived."""
        return sum(part.stat().st_size for part in self._part_files(sha256))

    def _assemble(self, sha256: str, size: int) -> bool:
        parts = self._part_files(sha256)
        if not parts or sum(part.stat().st_size for part in parts) != size:
            return False
        with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as whole:
            for part in parts:
                whole.write(part.read_bytes())
        Path(whole.name).replace(self.path(sha256))
        shutil.rmtree(self._parts(sha256), ignore_errors=True)
        return True

    def _parts(self, sha256: str) -> Path:
        return self._directory / f"{sha256}.parts"

    def _part_files(self, sha256: str) -> list[Path]:
        """The parts 0, 1, … up to the first one that is missing."""
        files: list[Path] = []
        while (path := self._parts(sha256) / str(len(files))).exists():
            files.append(path)
        return files


def _write(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
