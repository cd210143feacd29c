"""Advisory locks on files, which the kernel drops with the last process that holds them."""

from __future__ import annotations


def try_lock(fd: int) -> bool:
    """Take the lock if nobody else holds it."""
    import fcntl  # not on Windows, where the package must still import

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(fd: int) -> None:
    """Take the lock as soon as it is free."""
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX)


def move_fd(fd: int, least: int) -> int:
    """The same open file under a descriptor of at least `least`; `fd` is closed."""
    import fcntl
    import os

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    finally:
        os.close(fd)
