"""LightGBM's C library through ctypes, by its documented C API (`c_api.h`).

The library file is loaded directly: importing the package also imports scikit-learn, pandas and scipy (3 s), and
`Booster.predict` adds 8 µs per call. The location of the library file in the package is not documented.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from inferd.schemas.errors import InferenceError, InternalError, ServerError

FLOAT64 = 1
ROW_MAJOR = 1
PREDICT_NORMAL, PREDICT_RAW, PREDICT_LEAVES, PREDICT_CONTRIBUTIONS = 0, 1, 2, 3
FIRST_ITERATION, ALL_ITERATIONS = 0, -1

_int, _pointer, _text = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
_SIGNATURES: dict[str, list[type]] = {
    "LGBM_BoosterLoadModelFromString": [_text, _pointer, _pointer],
    "LGBM_BoosterFree": [_pointer],
    "LGBM_BoosterGetNumFeature": [_pointer, _pointer],
    "LGBM_BoosterNumModelPerIteration": [_pointer, _pointer],
    "LGBM_BoosterNumberOfTotalModel": [_pointer, _pointer],
    "LGBM_BoosterPredictForMat": [_pointer, _pointer, *[_int] * 7, _text, _pointer, _pointer],
    "LGBM_BoosterPredictForMatSingleRowFastInit": [_pointer, *[_int] * 5, _text, _pointer],
    "LGBM_BoosterPredictForMatSingleRowFast": [_pointer] * 4,
    "LGBM_FastConfigFree": [_pointer],
    "LGBM_GetSampleCount": [_int, _text, _pointer],
    "LGBM_SetMaxThreads": [_int],
}


class Library:
    """The C functions. Thread-safe, by the library's own locks."""

    def __init__(self, path: Path) -> None:
        # A separate object: argument types set here do not affect the lightgbm package's.
        self.functions = _load(path)
        self.functions.LGBM_GetLastError.restype = _text
        for name, argument_types in _SIGNATURES.items():
            getattr(self.functions, name).argtypes = argument_types
        self.threads: int | None = None
        """Threads of one prediction; None before the first model is loaded."""
        self._lock = threading.Lock()

    def call(self, name: str, *arguments: object) -> None:
        """Calls `name`; `InternalError` with the library's message if it fails."""
        if getattr(self.functions, name)(*arguments):
            raise self.error(name)

    def error(self, name: str) -> InferenceError:
        """The library's message for the last failed call of this thread."""
        return InternalError(f"{name}: {self.functions.LGBM_GetLastError().decode('utf-8', 'replace')}")

    def integer(self, name: str, booster: ctypes.c_void_p) -> int:
        """The result of a function that returns one int about a booster."""
        value = _int()
        self.call(name, booster, ctypes.byref(value))
        return value.value

    def parameters(self, threads: int) -> bytes:
        """The parameters of every predict call; `ServerError` if another number of threads is already in use.

        The library keeps its number of threads in one variable per process, and allocates a call's buffers by it before
        it starts the call's threads. Concurrent changes would make it write out of bounds.
        """
        with self._lock:
            if self.threads not in (None, threads):
                raise ServerError(f"LightGBM with {threads} threads: this process already predicts with {self.threads}")
            self.threads = threads
        return b"num_threads=%d verbosity=-1" % threads

    def silence(self, parameters: bytes) -> None:
        """Stops the library from printing to stdout in this thread (its log level is thread-local)."""
        ignored = _int()
        self.call("LGBM_GetSampleCount", 1, parameters, ctypes.byref(ignored))

    def cap_threads(self, threads: int) -> None:
        """Limits the threads of any call of LightGBM, for the whole process, including training."""
        self.call("LGBM_SetMaxThreads", threads)


def _load(path: Path) -> ctypes.CDLL:
    """Loads the library at `path`; `ServerError` with a remedy if it, or a library that it needs, cannot be loaded."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        remedy = _OPENMP_REMEDY if "omp" in str(error) else ""
        raise ServerError(f"LightGBM's library cannot be loaded: {error}{remedy}") from None


def library_path() -> Path:
    """The path of the C library in the installed lightgbm package; `ServerError` if it is not found."""
    spec = find_spec("lightgbm")
    for place in (spec and spec.submodule_search_locations) or ():
        for path in (Path(place) / "lib" / _FILE_NAME, Path(place) / "bin" / _FILE_NAME):
            if path.is_file():
                return path
    raise ServerError(f"LightGBM's {_FILE_NAME} was not found: install the lightgbm package (pip install lightgbm)")


@cache
def library() -> Library:
    """The single `Library` of this process, loaded by the first call."""
    return Library(library_path())


_OPENMP_REMEDY = (
    ": install OpenMP's runtime, the package libgomp1 (Debian, Ubuntu), libgomp (Fedora, Alpine) or libomp (Homebrew)"
)
_FILE_NAME = {"darwin": "lib_lightgbm.dylib", "win32": "lib_lightgbm.dll"}.get(sys.platform, "lib_lightgbm.so")
