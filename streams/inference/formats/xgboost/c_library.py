"""XGBoost's C library through ctypes, by its documented C API (`c_api.h`).

The library file is loaded directly: importing the package also imports scipy, pandas and scikit-learn. The location of
the library file in the package is not documented.
"""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InferenceError, InternalError, ServerError
from inferd.streams.inference.libraries import missing_library, package_folder

PACKAGE, EXTRA = "xgboost", "xgboost"
_pointer, _text, _long = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64
_FILE_NAME = {"darwin": "libxgboost.dylib", "win32": "xgboost.dll"}.get(sys.platform, "libxgboost.so")
_SOURCE, _STACK = re.compile(r"^\[[0-9:]+\] \S+: ", re.ASCII), "\nStack trace"
"""The time and the place in the library's source at the start of a message, and the part that follows it."""
_SIGNATURES: dict[str, list[type]] = {
    "XGBoosterCreate": [_pointer, _long, _pointer],
    "XGBoosterFree": [_pointer],
    "XGBoosterSetParam": [_pointer, _text, _text],
    "XGBoosterLoadModelFromBuffer": [_pointer, _text, _long],
    "XGBoosterGetNumFeature": [_pointer, _pointer],
    "XGBoosterBoostedRounds": [_pointer, _pointer],
    "XGBoosterPredictFromDense": [_pointer, _text, _text, *[_pointer] * 4],
    "XGBoosterPredictFromDMatrix": [_pointer, _pointer, _text, *[_pointer] * 3],
    "XGDMatrixCreateFromDense": [_text, _text, _pointer],
    "XGDMatrixFree": [_pointer],
    "XGBSetGlobalConfig": [_text],
}


class Library:
    """The C functions. Thread-safe."""

    def __init__(self, path: Path) -> None:
        try:
            self.functions = ctypes.CDLL(str(path))
        except OSError as error:
            raise ServerError(f"XGBoost's library cannot be loaded: {error}") from None
        self.functions.XGBGetLastError.restype = _text
        for name, argument_types in _SIGNATURES.items():
            getattr(self.functions, name).argtypes = argument_types

    def call(self, name: str, *arguments: object) -> None:
        """Calls `name`; `InternalError` with the first line of the library's message if it fails."""
        if getattr(self.functions, name)(*arguments):
            raise self._error(name)

    def _error(self, name: str) -> InferenceError:
        message: str = self.functions.XGBGetLastError().decode("utf-8", "replace")
        return InternalError(f"{name}: {_SOURCE.sub('', message.partition(_STACK)[0]).strip()}")

    def silence(self) -> None:
        """Stops the library from logging in this thread; its verbosity is thread-local."""
        self.call("XGBSetGlobalConfig", b'{"verbosity": 0}')


class Result:
    """Pointers through which the library returns the shape and values of a prediction."""

    def __init__(self) -> None:
        self._shape = ctypes.POINTER(_long)()
        self._dimensions = _long()
        self._values = ctypes.POINTER(ctypes.c_float)()
        self.references = (
            ctypes.byref(self._shape), ctypes.byref(self._dimensions), ctypes.byref(self._values),
        )  # fmt: skip

    def copied(self) -> NDArray[np.float32]:
        """A copy of the values: the library overwrites its own in the next call of this thread."""
        shape = tuple(self._shape[axis] for axis in range(self._dimensions.value))
        return np.ctypeslib.as_array(self._values, shape).copy()


@cache
def library() -> Library:
    """The single `Library` of this process, loaded by the first call; `InternalError` if XGBoost is not installed."""
    path = package_folder(PACKAGE, "XGBoost", EXTRA) / "lib" / _FILE_NAME
    if not path.is_file():
        raise missing_library("XGBoost", EXTRA)
    return Library(path)
