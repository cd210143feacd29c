"""LightGBM's C library by ctypes, through the C API that LightGBM documents (`c_api.h`).

It is loaded straight from the installed package: importing the package pulls in scikit-learn, pandas and scipy (3 s),
and `Booster.predict` adds 8 µs a call. What is not documented is where in the package the library file lies.
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
    """The C functions; safe from any thread, as their own locks are."""

    def __init__(self, path: Path) -> None:
        # An object of our own: argument types set here do not reach the lightgbm package's.
        self.functions = _load(path)
        self.functions.LGBM_GetLastError.restype = _text
        for name, argument_types in _SIGNATURES.items():
            getattr(self.functions, name).argtypes = argument_types
        self.threads: int | None = None
        """Threads of one prediction; None before the first model is loaded."""
        self._lock = threading.Lock()

    def call(self, name: str, *arguments: object) -> None:
        """Calls `name`; `InternalError` with the library's own words where it fails."""
        if getattr(self.functions, name)(*arguments):
            raise self.error(name)

    def error(self, name: str) -> InferenceError:
        """What the library says about the last call of this thread that failed."""
        return InternalError(f"{name}: {self.functions.LGBM_GetLastError().decode('utf-8', 'replace')}")

    def integer(self, name: str, booster: ctypes.c_void_p) -> int:
        """What a function that answers with one int says about a booster."""
        value = _int()
        self.call(name, booster, ctypes.byref(value))
        return value.value

    def parameters(self, threads: int) -> bytes:
        """The parameters of every predict call; `ServerError` for another number of threads than is in use.

        The library keeps its number of threads in one variable of the process, and sizes a call's buffers by it before
        it starts the call's threads: runtimes that change it under each other write out of bounds.
        """
        with self._lock:
            if self.threads not in (None, threads):
                raise ServerError(f"LightGBM with {threads} threads: this process already predicts with {self.threads}")
            self.threads = threads
        return b"num_threads=%d verbosity=-1" % threads

    def silence(self, parameters: bytes) -> None:
        """Stops the library from printing to stdout in this thread (its log level is a variable of the thread)."""
        ignored = _int()
        self.call("LGBM_GetSampleCount", 1, parameters, ctypes.byref(ignored))

    def cap_threads(self, threads: int) -> None:
        """For the whole process, also for training in it: no call of LightGBM uses more threads than this."""
        self.call("LGBM_SetMaxThreads", threads)


def _load(path: Path) -> ctypes.CDLL:
    """The library at `path`; `ServerError` with a remedy where it, or one that it needs, cannot be loaded."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        remedy = _OPENMP_REMEDY if "omp" in str(error) else ""
        raise ServerError(f"LightGBM's library cannot be loaded: {error}{remedy}") from None


def library_path() -> Path:
    """Where the installed lightgbm package keeps its C library; `ServerError` where it cannot be found."""
    spec = find_spec("lightgbm")
    for place in (spec and spec.submodule_search_locations) or ():
        for path in (Path(place) / "lib" / _FILE_NAME, Path(place) / "bin" / _FILE_NAME):
            if path.is_file():
                return path
    raise ServerError(f"LightGBM's {_FILE_NAME} was not found: install the lightgbm package (pip install lightgbm)")


@cache
def library() -> Library:
    """The one `Library` of this process, loaded on the first call."""
    return Library(library_path())


_OPENMP_REMEDY = (
    ": install OpenMP's runtime, the package libgomp1 (Debian, Ubuntu), libgomp (Fedora, Alpine) or libomp (Homebrew)"
)
_FILE_NAME = {"darwin": "lib_lightgbm.dylib", "win32": "lib_lightgbm.dll"}.get(sys.platform, "lib_lightgbm.so")
