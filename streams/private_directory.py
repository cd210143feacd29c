"""Directories for client data, accessible only to the user of the process."""

from __future__ import annotations

from pathlib import Path

PRIVATE_MODE = 0o700


def private_directory(path: Path) -> None:
    """Create a directory and its missing parents with mode 0700; existing ones keep their mode."""
    try:
        path.mkdir(mode=PRIVATE_MODE, exist_ok=True)
    except FileNotFoundError:
        if path.parent == path:
            raise
        private_directory(path.parent)
        path.mkdir(mode=PRIVATE_MODE, exist_ok=True)
