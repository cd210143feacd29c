"""Files of secrets or token digests: text that only its owner and group may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from inferd.schemas.errors import ServerError

FILE_BYTES_MAX = 1_048_576


def read_private_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file with their numbers (from 1), without empty lines and comments (`#`).

    Raises `ServerError` if the file cannot be read, is too large, or has permissions that are too wide.
    """
    try:
        with path.open("rb") as file:
            _check_mode(path, os.fstat(file.fileno()))
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ServerError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > FILE_BYTES_MAX:
        raise ServerError(f"{path} exceeds the limit of {FILE_BYTES_MAX} bytes")
    lines = [line.strip() for line in content.decode("utf-8", "backslashreplace").splitlines()]
    return [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]


def _check_mode(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ServerError(
            f"{path} has mode {mode:04o}: only its owner may write it, and only its owner and group may read it. Run:"
            f" chmod 640 {path}"
        )
