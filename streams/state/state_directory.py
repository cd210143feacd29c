"""One state directory per worker of a machine: the first unlocked one, so that a restarted worker finds its own
again."""

from __future__ import annotations

import fcntl
import itertools
from pathlib import Path
from typing import IO

from inferd.schemas.errors import ServerError
from inferd.streams.private_directory import private_directory

LOCK_NAME = "lock"


class StateDirectory:
    """A directory that this process holds exclusively until `close` or its exit."""

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        """Releases the lock."""
        self._lock.close()


def claim_state_directory(directory: Path) -> StateDirectory:
    """Locks the first free directory of 0, 1, …; raises `ServerError` if the disk fails."""
    for number in itertools.count():
        path = directory / str(number)
        try:
            private_directory(path)
            lock = (path / LOCK_NAME).open("wb")
        except OSError as error:
            raise ServerError(
                f"{path}: tables cannot be stored there: {error.strerror}; see INFERD_DATA_DIR"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return StateDirectory(path, lock)
    raise AssertionError("there is always another number")
