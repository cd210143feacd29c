"""Loads the compiled kernels: a shared library that is built at installation, next to this file."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path

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


class Library:
    """The functions of the kernels."""

    def __init__(self, path: Path) -> None:
        """`UnavailableError` if the library at `path` cannot be loaded."""
        try:
            functions = ctypes.CDLL(str(path))
            self.predict = functions.inferd_tree_predict
            self.version: int = functions.inferd_version()
            self.index_entries = functions.inferd_index_entries
            self.read_rows = functions.inferd_read_rows
            self.read_records = functions.inferd_read_records
            self.scan_batch = functions.inferd_scan_batch
            self.read_envelopes = functions.inferd_read_envelopes
            self.hash_keys = functions.inferd_hash_keys
            self.join_results = functions.inferd_join_results
            self.write_records = functions.inferd_write_records
            self.split_headers = functions.inferd_split_headers
            self.number_parts = functions.inferd_number_parts
            self.crc32c = functions.inferd_crc32c
            self.count_bins = functions.inferd_count_bins
        except (OSError, AttributeError) as error:
            raise UnavailableError(f"their library cannot be loaded: {error}") from None
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self.predict.argtypes = [pointer, pointer, pointer, count, pointer, ctypes.c_int32]
        self.index_entries.argtypes = [pointer, pointer]
        self.read_rows.argtypes = [pointer, ctypes.c_int32, *[pointer] * 3, count, pointer, pointer]
        self.read_records.argtypes = [
            pointer, count, count, ctypes.c_int32, *[pointer] * 3, count, pointer, pointer,
        ]  # fmt: skip
        self.scan_batch.argtypes = [pointer, *[count] * 7, pointer]
        self.read_envelopes.argtypes = [
            ctypes.c_int32, *[pointer] * 3, count, count, pointer, count, *[pointer] * 4,
        ]  # fmt: skip
        self.index_entries.restype, self.read_rows.restype, self.read_envelopes.restype = None, count, count
        self.hash_keys.argtypes = [pointer, pointer, count, pointer, ctypes.c_int32]
        self.hash_keys.restype = None
        self.join_results.argtypes = [ctypes.c_int32, *[pointer] * 3, count, pointer, pointer]
        self.write_records.argtypes = [*[pointer] * 3, count, count, count, pointer, pointer]
        self.split_headers.argtypes = [pointer, pointer, count, *[pointer] * 5]
        self.split_headers.restype = None
        self.number_parts.argtypes = [pointer, count, count, pointer, pointer]
        self.crc32c.argtypes, self.crc32c.restype = [pointer, count, count], count
        self.join_results.restype, self.write_records.restype, self.number_parts.restype = None, count, count
        self.count_bins.argtypes = [
            pointer, count, count, pointer, count, pointer, count, pointer, pointer, ctypes.c_int32,
        ]  # fmt: skip
        self.count_bins.restype = None
        self.read_records.restype, self.scan_batch.restype = count, ctypes.c_int32


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
