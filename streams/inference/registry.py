"""The registry of model formats. `docs/architecture.md` shows how to add one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec

from inferd.schemas.errors import InferenceError, MalformedError, ModelServingError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.streams.inference.foreign_files import foreign_file
from inferd.streams.inference.formats.catboost import CATBOOST
from inferd.streams.inference.formats.lightgbm import LIGHTGBM
from inferd.streams.inference.formats.onnx import ONNX
from inferd.streams.inference.formats.sklearn import SKLEARN
from inferd.streams.inference.formats.xgboost import XGBOOST
from inferd.streams.inference.model_format import ModelFile, ModelFormat
from inferd.streams.inference.third_party import ThirdParty, third_party_formats

_BUILT_IN = (LIGHTGBM, XGBOOST, CATBOOST, ONNX, SKLEARN)
_FORMATS: dict[str, ModelFormat] = {each.name: each for each in _BUILT_IN}
_BUILT_IN_NAMES = frozenset(_FORMATS)


class FormatReport(msgspec.Struct, frozen=True):
    """A model format and the known facts about it."""

    name: str
    package: str | None
    """The package of a third party, with its version; None for formats of inferd."""
    version: str | None
    """Of the library; None if it is not installed, or if no model has needed a third party's format yet."""
    problem: str | None
    """Why it cannot be used."""


def register(model_format: ModelFormat) -> None:
    """Adds a format. `ValueError` if its name is taken."""
    if _FORMATS.setdefault(model_format.name, model_format) is not model_format:
        raise ValueError(f"model format {model_format.name!r} is registered already")


def unregister(name: str) -> None:
    """Removes a format."""
    del _FORMATS[name]


def all_formats() -> Iterator[ModelFormat]:
    """All usable formats, in the order in which they are tried on a file. Imports formats of other packages."""
    yield from tuple(_FORMATS.values())
    for each in _third_party():
        if (found := each.load()) is not None:
            yield found


def is_format(name: str) -> bool:
    """Whether there is a format with this name, even if it cannot be used."""
    return name in _FORMATS or any(each.name == name for each in _third_party())


def format_named(name: str) -> ModelFormat:
    """The format with a name. `MalformedError` if it is unknown, `InternalError` if it cannot be used."""
    if (known := _FORMATS.get(name)) is not None:
        return known
    others = _third_party()
    for each in others:
        if each.name == name:
            if (found := each.load()) is None:
                raise each.error
            return found
    names = ", ".join(dict.fromkeys([*_FORMATS, *(each.name for each in others)]))
    raise MalformedError(f"manifest: runtime is {name[:80]!r}; known are {names}")


def describe_formats(*, load: bool = False) -> list[FormatReport]:
    """All formats, including those that cannot be used. With `load`, formats of other packages are imported."""
    reports = [_report(each, None) for each in tuple(_FORMATS.values())]
    for other in third_party_formats(_BUILT_IN_NAMES):
        if load:
            other.load()
        if other.format is not None:
            reports.append(_report(other.format, other.package))
        else:
            reports.append(FormatReport(other.name, other.package, None, other.problem))
    return reports


@cache
def _report(found: ModelFormat, package: str | None) -> FormatReport:
    try:
        return FormatReport(found.name, package, found.library_version(), None)
    except ModelServingError as error:
        return FormatReport(found.name, package, None, error.message)


def _third_party() -> tuple[ThirdParty, ...]:
    """The formats of other packages whose names are not taken."""
    return tuple(each for each in third_party_formats(_BUILT_IN_NAMES) if each.name not in _FORMATS)


def read_model(content: bytes, limits: Limits = DEFAULT_LIMITS, runtime: str | None = None) -> ModelFile:
    """Checks a model file and reads its facts. Without `runtime`, the format is recognised by the first bytes.

    `TooLargeError` or `MalformedError` say what is wrong and where.
    """
    if len(content) > limits.artifact_bytes_max:
        raise TooLargeError(f"model file of {len(content)} bytes: at most {limits.artifact_bytes_max} are allowed")
    found = recognise(content) if runtime is None else format_named(runtime)
    return found.read(content, limits)


def recognise(content: bytes) -> ModelFormat:
    """Recognises the format of a file by its first bytes. `MalformedError` names the kind of file if it is known."""
    failed = []
    for each in all_formats():
        try:
            if each.sniff(content):
                return each
        except InferenceError:
            failed.append(repr(each.name))
    if (foreign := foreign_file(content)) is not None:
        raise MalformedError(f"model file: {foreign}")
    failed += [f"{each.name!r} of {each.package}" for each in _third_party() if each.problem is not None]
    unusable = f"formats {', '.join(failed)} cannot be used (see inferd doctor); " if failed else ""
    expected = " or ".join(each.begins for each in all_formats())
    raise MalformedError(f"model file: {unusable}does not begin with {expected}; pickles are not accepted")
