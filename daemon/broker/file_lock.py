"""Advisory file locks (`flock`). The kernel releases a lock when the last process that holds it ends."""

from __future__ import annotations


def try_lock(fd: int) -> bool:
    """Try to acquire the lock without waiting. Returns whether it was acquired."""
    import fcntl  # missing on Windows, where this module must still import

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(fd: int) -> None:
    """Acquire the lock; block until it is free."""
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX)


def move_fd(fd: int, least: int) -> int:
    """Duplicate `fd` to a descriptor of at least `least`, and close `fd`."""
    import fcntl
    import os

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    finally:
        os.close(fd)
