"""Memory of this process: bytes in use, and freed bytes that the allocator keeps."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _MallInfo2(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later (mallinfo(3))."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def return_freed_memory() -> None:
    """Returns freed memory to the system; glibc keeps it otherwise. No effect with other C libraries."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def used_bytes() -> tuple[int, int]:
    """Bytes allocated by `malloc` and not freed (0 if the C library does not report them), and resident bytes.

    The former include Python objects only with `PYTHONMALLOC=malloc`. Resident bytes exclude file pages, such as
    libraries; memory of other allocators is counted only there.
    """
    gc.collect()
    return_freed_memory()
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return _allocated_bytes(), (int(resident) - int(shared)) * _PAGE_BYTES


def _allocated_bytes() -> int:
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = _MallInfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)
