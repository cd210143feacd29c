"""Java's ahead-of-time cache of loaded and linked classes. It more than halves the start time of the broker.

Java writes the cache when a recording broker ends. At each start Java checks the cache against the jars and the
runtime, and ignores one that does not match.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path

from inferd.daemon.broker.jvm import Java

STALE_AFTER_S = 3600.0


class StartupCache:
    """The cache for one Java and its jars: read if it exists, recorded if not."""

    def __init__(self, java: Java) -> None:
        self._directory = java.jars[0].parent
        self._path = self._directory / f"startup-{_digest(java)}.aot"
        self._recording: Path | None = None

    @property
    def is_recording(self) -> bool:
        """Whether the running broker writes the cache when it ends."""
        return self._recording is not None

    def options_to_read(self) -> list[str]:
        """Java options that read the cache; empty if there is none."""
        return [f"-XX:AOTCache={self._path}"] if self._path.exists() else []

    def options_to_record(self) -> list[str]:
        """Java options that write the cache when Java ends; empty if the directory is not writable."""
        if not os.access(self._directory, os.W_OK):
            return []
        self._remove_stale()
        self._recording = self._path.with_suffix(f".{secrets.token_hex(4)}.unfinished")
        return [f"-XX:AOTCacheOutput={self._recording}"]

    def remove(self) -> bool:
        """Removes the cache; returns whether it existed."""
        was_there = self._path.exists()
        self._path.unlink(missing_ok=True)
        return was_there

    def keep(self) -> None:
        """Rename a complete recording to its final name, and remove the caches of earlier jars."""
        if self._recording is None or not self._recording.exists():
            return
        for earlier in self._directory.glob("startup-*.aot"):
            earlier.unlink(missing_ok=True)
        self._recording.replace(self._path)

    def discard(self) -> None:
        """Remove the files of an interrupted recording."""
        if self._recording is not None:
            for unfinished in self._directory.glob(f"{self._recording.name}*"):
                unfinished.unlink(missing_ok=True)
            self._recording = None

    def _remove_stale(self) -> None:
        for unfinished in self._directory.glob("startup-*.unfinished*"):
            if time.time() - unfinished.stat().st_mtime > STALE_AFTER_S:
                unfinished.unlink(missing_ok=True)


def _digest(java: Java) -> str:
    # Java rejects a cache if the modification time of a jar differs, so a jar downloaded again needs a new one.
    facts = [java.version, *(f"{jar} {jar.stat().st_mtime_ns} {jar.stat().st_size}" for jar in java.jars)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
