"""Loads OpenMP's runtime, which libraries of model formats are linked to, and which minimal Linux systems lack.

The system's runtime is used if there is one, otherwise the copy in treelite's wheel. Wheels rename their bundled
libraries; the name that the dynamic linker looks for is restored in memory. Needs Linux with glibc; has no effect on
other systems. Call `load_openmp` before a model is loaded: it reads files, which `streams/inference` does not.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

_NAME = "libgomp.so.1"
_CARRIER = "treelite"
_RENAMED = re.compile(rb"\0libgomp-[0-9a-f]{8}\.so\.1\.0\.0(?=\0)")


def load_openmp() -> None:
    """Loads OpenMP's runtime, so that libraries linked to it can be loaded. No effect if repeated or not needed."""
    if sys.platform != "linux" or _loads(_NAME):
        return
    for path in _bundled_copies():
        if _loads_renamed(path):
            return


def _loads(path: str) -> bool:
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True


def _bundled_copies() -> list[Path]:
    """The copies of the runtime in the wheel that bundles it."""
    spec = find_spec(_CARRIER)
    places = (spec and spec.submodule_search_locations) or ()
    return [path for place in places for path in sorted(Path(place).parent.glob(f"{_CARRIER}.libs/libgomp-*"))]


def _loads_renamed(path: Path) -> bool:
    """Whether the library at `path` was loaded under the name that the linker looks for."""
    library, renamed = _RENAMED.subn(_own_name, path.read_bytes())
    if renamed != 1:
        return False
    try:
        file = os.memfd_create(_NAME)
    except OSError:
        return False
    with os.fdopen(file, "wb") as memory:
        memory.write(library)
        memory.flush()
        return _loads(f"/proc/self/fd/{memory.fileno()}")


def _own_name(found: re.Match[bytes]) -> bytes:
    return b"\0" + _NAME.encode().ljust(len(found[0]) - 1, b"\0")
