"""The registry of model formats. `docs/architecture.md` shows how to add one."""

from __future__ import annotations

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.streams.inference.foreign_files import foreign_file
from inferd.streams.inference.formats.catboost import CATBOOST
from inferd.streams.inference.formats.lightgbm import LIGHTGBM
from inferd.streams.inference.formats.onnx import ONNX
from inferd.streams.inference.formats.sklearn import SKLEARN
from inferd.streams.inference.formats.xgboost import XGBOOST
from inferd.streams.inference.model_format import ModelFile, ModelFormat

_FORMATS: dict[str, ModelFormat] = {}


def register(model_format: ModelFormat) -> None:
    """Adds a format. `ValueError` if its name is taken."""
    if _FORMATS.setdefault(model_format.name, model_format) is not model_format:
        raise ValueError(f"model format {model_format.name!r} is registered already")


def unregister(name: str) -> None:
    """Removes a format."""
    del _FORMATS[name]


def all_formats() -> tuple[ModelFormat, ...]:
    """All formats, in the order in which they are tried on a file."""
    return tuple(_FORMATS.values())


def format_named(name: str) -> ModelFormat:
    """The format that manifests call `name`; `MalformedError` if there is none."""
    try:
        return _FORMATS[name]
    except KeyError:
        raise MalformedError(f"manifest: runtime is {name[:80]!r}; known are {', '.join(_FORMATS)}") from None


def read_model(content: bytes, limits: Limits = DEFAULT_LIMITS, runtime: str | None = None) -> ModelFile:
    """Checks a model file and reads its facts. Without `runtime`, its first bytes name its format.

    `TooLargeError` or `MalformedError`: what is wrong with it, and where.
    """
    if len(content) > limits.artifact_bytes_max:
        raise TooLargeError(f"model file of {len(content)} bytes: at most {limits.artifact_bytes_max} are allowed")
    found = _sniffed(content) if runtime is None else format_named(runtime)
    return found.read(content, limits)


def _sniffed(content: bytes) -> ModelFormat:
    for each in all_formats():
        if each.sniff(content):
            return each
    if (foreign := foreign_file(content)) is not None:
        raise MalformedError(f"model file: {foreign}")
    expected = " or ".join(each.begins for each in all_formats())
    raise MalformedError(f"model file: does not begin with {expected}; pickles are not accepted")


register(LIGHTGBM)
register(XGBOOST)
register(CATBOOST)
register(ONNX)
register(SKLEARN)
