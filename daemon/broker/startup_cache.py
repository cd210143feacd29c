"""Java's ahead-of-time cache of loaded and linked classes: made once, it more than halves the broker's start.

Java writes it when a recording broker ends, and itself checks at each start that it fits the jars and the runtime:
one that does not fit is ignored.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path

from inferd.daemon.broker.jvm import Java

FORGOTTEN_AFTER_S = 3600.0


class StartupCache:
    """The cache for one Java and its jars: read if it is there, recorded if it is not."""

    def __init__(self, java: Java) -> None:
        self._directory = java.jars[0].parent
        self._path = self._directory / f"startup-{_digest(java)}.aot"
        self._recording: Path | None = None

    @property
    def is_recording(self) -> bool:
        """Whether the broker that was started last writes the cache when it ends."""
        return self._recording is not None

    def options_to_read(self) -> list[str]:
        """Java options that use the cache, if there is one."""
        return [f"-XX:AOTCache={self._path}"] if self._path.exists() else []

    def options_to_record(self) -> list[str]:
        """Java options that write the cache when Java ends, if it can be written."""
        if not os.access(self._directory, os.W_OK):
            return []
        self._remove_forgotten()
        self._recording = self._path.with_suffix(f".{secrets.token_hex(4)}.unfinished")
        return [f"-XX:AOTCacheOutput={self._recording}"]

    def remove(self) -> bool:
        """Remove the cache; whether there was one."""
        was_there = self._path.exists()
        self._path.unlink(missing_ok=True)
        return was_there

    def keep(self) -> None:
        """Put a cache that was recorded to its end in place, and remove those of earlier jars."""
        if self._recording is None or not self._recording.exists():
            return
        for earlier in self._directory.glob("startup-*.aot"):
            earlier.unlink(missing_ok=True)
        self._recording.replace(self._path)

    def discard(self) -> None:
        """Remove what an interrupted recording left."""
        if self._recording is not None:
            for unfinished in self._directory.glob(f"{self._recording.name}*"):
                unfinished.unlink(missing_ok=True)
            self._recording = None

    def _remove_forgotten(self) -> None:
        for unfinished in self._directory.glob("startup-*.unfinished*"):
            if time.time() - unfinished.stat().st_mtime > FORGOTTEN_AFTER_S:
                unfinished.unlink(missing_ok=True)


def _digest(java: Java) -> str:
    # Java refuses a cache when a jar has another time of change, so a jar that was downloaded again asks for a new one.
    facts = [java.version, *(f"{jar} {jar.stat().st_mtime_ns} {jar.stat().st_size}" for jar in java.jars)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
