"""Directories that hold what clients sent: for the user of the process alone."""

from __future__ import annotations

from pathlib import Path

PRIVATE_MODE = 0o700


def private_directory(path: Path) -> None:
    """Makes a directory and those above it that are missing, with mode 0700; what exists keeps its mode."""
    try:
        path.mkdir(mode=PRIVATE_MODE, exist_ok=True)
    except FileNotFoundError:
        if path.parent == path:
            raise
        private_directory(path.parent)
        path.mkdir(mode=PRIVATE_MODE, exist_ok=True)
