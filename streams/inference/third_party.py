"""Model formats of other packages, found by the entry-point group `inferd.model_formats`.

An entry point has the name of its format and refers to a `ModelFormat`. Its module is imported when a model or a file
needs it. A format that cannot be used is reported by name, and does not affect the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, wraps
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any

from inferd.schemas.errors import InferenceError, InternalError, MalformedError, ModelServingError
from inferd.schemas.limits import Limits
from inferd.schemas.models import RUNTIME_PATTERN
from inferd.streams.inference.model_format import ModelFile, ModelFormat

GROUP = "inferd.model_formats"
_FUNCTIONS = tuple(each.name for each in fields(ModelFormat) if each.name not in ("name", "begins", "equal_zeros"))


@dataclass(slots=True)
class ThirdParty:
    """A format of another package: not yet imported, loaded (`format`), or unusable (`problem`)."""

    name: str
    package: str
    """The package and its version."""
    entry: EntryPoint | None
    problem: str | None = None
    format: ModelFormat | None = None

    def load(self) -> ModelFormat | None:
        """The format, imported by the first call; None if it has a `problem`."""
        if self.format is None and self.problem is None:
            try:
                self.format = self._loaded()
            except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a package raises as it is imported
                self.problem = str(error) if isinstance(error, InferenceError) else f"cannot be imported: {_of(error)}"
        return self.format

    @property
    def error(self) -> InternalError:
        """Why it cannot be used."""
        return InternalError(f"model format {self.name!r} of {self.package} cannot be used: {self.problem}")

    def _loaded(self) -> ModelFormat:
        assert self.entry is not None
        found = self.entry.load()
        if not isinstance(found, ModelFormat):
            raise MalformedError(f"{self.entry.value} is of type {type(found).__name__}, and not a ModelFormat")
        if found.name != self.name:
            raise MalformedError(f"{self.entry.value} is named {found.name!r}, and its entry point {self.name!r}")
        wrong = [name for name in _FUNCTIONS if not callable(getattr(found, name))]
        if wrong or not isinstance(found.begins, str):
            raise MalformedError(f"{self.entry.value}: {', '.join(wrong) or 'begins'} is of a wrong type")
        return self._guarded(found)

    def _guarded(self, found: ModelFormat) -> ModelFormat:
        """`found`, with its functions wrapped: they only raise inferd's errors, and their results are checked."""
        guarded: dict[str, Any] = {name: self._guard(getattr(found, name), InternalError) for name in _FUNCTIONS}
        guarded["read"] = self._guard(self._checking(found.read), MalformedError)
        return replace(found, **guarded)

    def _guard(self, function: Callable[..., Any], raised: type[InferenceError]) -> Callable[..., Any]:
        @wraps(function)
        def guarded(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except (ModelServingError, MemoryError):
                raise
            except Exception as error:
                raise raised(f"model format {self.name!r} of {self.package} fails: {_of(error)}") from error

        return guarded

    def _checking(self, read: Callable[[bytes, Limits], ModelFile]) -> Callable[[bytes, Limits], ModelFile]:
        @wraps(read)
        def checked(content: bytes, limits: Limits) -> ModelFile:
            file: object = read(content, limits)
            if not isinstance(file, ModelFile) or file.runtime != self.name:
                raise TypeError(f"read gives {file!r:.80}, and not a ModelFile with the runtime {self.name!r}")
            return file

        return checked


def _of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@cache
def third_party_formats(taken: frozenset[str]) -> tuple[ThirdParty, ...]:
    """The formats of all installed packages, by name and package. `taken`: names of built-in formats. Imports no
    format."""
    found = sorted(_found(), key=lambda each: (each.name, each.package))
    owners = dict.fromkeys(taken, "inferd")
    for each in found:
        if owners.setdefault(each.name, each.package) != each.package:
            each.problem = f"the name is taken by {owners[each.name]}"
    return tuple(found)


def _found() -> Iterator[ThirdParty]:
    try:
        yield from map(_of_entry, entry_points(group=GROUP))
    except Exception:  # noqa: BLE001  # the metadata of one package is damaged: the others are read without it
        yield from _found_one_by_one()


def _found_one_by_one() -> Iterator[ThirdParty]:
    """Reads package by package, because one has damaged metadata. Reports such packages if they name the group."""
    for distribution in distributions():
        try:
            yield from map(_of_entry, distribution.entry_points.select(group=GROUP))
        except Exception as error:  # noqa: BLE001  # whatever the standard library raises on such metadata
            if _names_group(distribution):
                problem = f"its entry_points.txt cannot be read: {_of(error)}"
                yield ThirdParty("?", _package(distribution), None, problem)


def _names_group(distribution: Distribution) -> bool:
    with suppress(ValueError, OSError):
        return GROUP in (distribution.read_text("entry_points.txt") or "")
    return False


def _of_entry(entry: EntryPoint) -> ThirdParty:
    named = re.fullmatch(RUNTIME_PATTERN, entry.name) is not None
    problem = None if named else f"its name does not match {RUNTIME_PATTERN}"
    return ThirdParty(entry.name, _package(entry.dist), entry, problem)


def _package(distribution: Distribution | None) -> str:
    """The name and version of a package."""
    with suppress(Exception):
        if distribution is not None:
            return f"{distribution.name} {distribution.version}"
    return "a package without metadata"
