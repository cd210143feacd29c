"""Memory of this process, as far as the allocator has returned to the system what was freed."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Returns freed memory to the system; glibc keeps it otherwise. No effect with other C libraries."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Resident memory that is this process's own: without pages of files, such as libraries."""
    gc.collect()
    return_freed_memory()
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * _PAGE_BYTES
