"""Loads the compiled kernels: a shared library that is built at installation, next to this file."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

SOURCES = (
    "batches.c",
    "checksums.c",
    "envelopes.c",
    "headers.c",
    "histograms.c",
    "kernels.c",
    "keys.c",
    "records.c",
    "results.c",
    "rows.c",
    "trees.c",
)
LIBRARY, DIGESTS = "_kernels.so", "_kernels.sha256"
"""File names; the digests are those of the others, as sha256sum writes them."""
NOT_BUILT = "they were not built when inferd was installed"
SWITCHED_OFF = "they are switched off"
_FOLDER = Path(__file__).parent


class UnavailableError(Exception):
    """The kernels cannot be used on this machine; the message says why."""


class _Switch:
    on = True


def use_kernels(on: bool) -> None:
    """Sets for the whole process whether models loaded later are scored by kernels, if available."""
    _Switch.on = on


def kernels_in_use() -> bool:
    """Whether kernels are enabled."""
    return _Switch.on


def kernels_fault() -> str | None:
    """Why kernels are unavailable in this process; None if they are available."""
    try:
        library()
    except UnavailableError as error:
        return str(error)
    return None


def library() -> Library:
    """The kernels of this installation; `UnavailableError` if they are disabled or missing."""
    if not _Switch.on:
        raise UnavailableError(SWITCHED_OFF)
    return library_in(_FOLDER)


_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_FUNCTIONS: dict[str, tuple[Any, Sequence[Any]]] = {
    "tree_predict": (_NUMBER, (_POINTER, _POINTER, _POINTER, _COUNT, _POINTER, _NUMBER)),
    "version": (_NUMBER, ()),
    "index_entries": (None, (_POINTER, _POINTER)),
    "read_rows": (_COUNT, (_POINTER, _NUMBER, *[_POINTER] * 3, _COUNT, _POINTER, _POINTER)),
    "read_records": (
        _COUNT, (_POINTER, _COUNT, _COUNT, _NUMBER, *[_POINTER] * 3, _COUNT, _POINTER, _POINTER),
    ),
    "scan_batch": (_NUMBER, (_POINTER, *[_COUNT] * 7, _POINTER)),
    "count_records": (_COUNT, (_POINTER, _COUNT, _COUNT, _COUNT)),
    "scan_batches": (_COUNT, (_POINTER, *[_COUNT] * 4, _NUMBER, _POINTER, _POINTER, _POINTER)),
    "read_envelopes": (_COUNT, (_NUMBER, *[_POINTER] * 3, _COUNT, _COUNT, _POINTER, _COUNT, *[_POINTER] * 4)),
    "split_rows": (_COUNT, (_NUMBER, *[_POINTER] * 3, _COUNT, _POINTER, _COUNT)),
    "hash_keys": (None, (_POINTER, _COUNT, _POINTER, _POINTER, _COUNT, _POINTER, _NUMBER)),
    "split_headers": (None, [_POINTER] * 7),
    "join_results": (None, (_NUMBER, *[_POINTER] * 5)),
    "parts_bytes": (_COUNT, [_POINTER]),
    "records_bytes": (_COUNT, (*[_POINTER] * 3, _COUNT, _COUNT)),
    "write_records": (_COUNT, (*[_POINTER] * 3, _COUNT, _COUNT, _COUNT, _POINTER, _POINTER)),
    "number_parts": (_COUNT, (_POINTER, _COUNT, _POINTER, _POINTER)),
    "crc32c": (_COUNT, (_POINTER, _COUNT, _COUNT)),
    "count_bins": (
        None, (_POINTER, _COUNT, _COUNT, _POINTER, _COUNT, _POINTER, _COUNT, _POINTER, _POINTER, _NUMBER),
    ),
}  # fmt: skip
"""What each function returns and takes; in the library their names begin with `inferd_`."""


class Library:
    """The functions of the kernels, by the names of `_FUNCTIONS`."""

    def __init__(self, path: Path) -> None:
        """`UnavailableError` if the library at `path` cannot be loaded."""
        try:
            functions = ctypes.CDLL(str(path))
            found = {name: getattr(functions, f"inferd_{name}") for name in _FUNCTIONS}
        except (OSError, AttributeError) as error:
            raise UnavailableError(f"their library cannot be loaded: {error}") from None
        for name, (returned, taken) in _FUNCTIONS.items():
            function = found[name]
            function.restype, function.argtypes = returned, taken
            setattr(self, name, function)
        self.version: int = found["version"]()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


@cache
def library_in(folder: Path) -> Library:
    """The library in `folder`, loaded on the first call; `UnavailableError` if it is missing, damaged or outdated."""
    try:
        lines = [line.split() for line in (folder / DIGESTS).read_text().splitlines()]
        expected = {name: digest for digest, name in lines}
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (*SOURCES, LIBRARY)}
    except FileNotFoundError:
        raise UnavailableError(NOT_BUILT) from None
    except (OSError, ValueError) as error:
        raise UnavailableError(f"their files cannot be read: {error}") from None
    if any(found[name] != expected.get(name) for name in SOURCES):
        raise UnavailableError("they were built from another version of the source")
    if found[LIBRARY] != expected.get(LIBRARY):
        raise UnavailableError("their library is damaged")
    return Library(folder / LIBRARY)
