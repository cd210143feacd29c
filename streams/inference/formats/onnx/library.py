"""ONNX Runtime, imported when the first model needs it."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

from inferd.schemas.errors import InternalError, InvalidValueError, MalformedError
from inferd.streams.inference.libraries import missing_library

EXTRA = "onnx"
_FATAL = 4
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


class Library:
    """ONNX Runtime's sessions."""

    def __init__(self) -> None:
        # Its packages send usage data to Microsoft, and keep a file `.ses` for that in the temporary directory.
        os.environ.setdefault(_NO_TELEMETRY, "1")
        self._runtime = import_module("onnxruntime")
        self._runtime.disable_telemetry_events()
        state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        self._rejections: tuple[type[Exception], ...] = (state.InvalidArgument, state.Fail, state.RuntimeException)
        self._runtime.set_default_logger_severity(_FATAL)

    def session(self, content: bytes, threads: int) -> Any:
        """A deterministic session on the CPU; `MalformedError` with the library's message if the model is rejected."""
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._runtime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = _FATAL
        # Its threads wait for work without spinning.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return self._runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it raises, the file is to blame
            raise MalformedError(f"model file: ONNX Runtime rejects it: {error}") from None

    def run(self, session: Any, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """The outputs with these names; `InvalidValueError` if the graph rejects the rows."""
        try:
            return list(session.run(names, feed))
        except self._rejections as error:
            if "bad_alloc" in str(error) or "Failed to allocate" in str(error):
                raise InternalError(f"ONNX Runtime: bad_alloc: {error}") from None
            raise InvalidValueError("an operator of the graph rejects its values") from None


@cache
def library() -> Library:
    """The library, imported by the first call; an error that names the extra if it is not installed."""
    try:
        return Library()
    except ImportError:
        raise missing_library("ONNX Runtime", EXTRA) from None
