"""Finds classes of the user's own by their names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def find_class(path: str) -> Any:
    """What `module.Class` names; the working directory is on the import path.

    Raises `AttributeError` if the module has no such name, and whatever importing it raises.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    module, _, name = path.rpartition(".")
    loaded = importlib.import_module(module)
    if not hasattr(loaded, name):
        raise AttributeError(f"module {module!r} has no {name!r}")
    return getattr(loaded, name)
