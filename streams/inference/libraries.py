"""Libraries of model formats, installed as extras of the package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from inferd.schemas.errors import InternalError


def missing_library(name: str, extra: str) -> InternalError:
    """The error for a format whose library is not installed. It names the extra that installs it."""
    return InternalError(f"{name} is not installed here: pip install 'inferd[{extra}]'")


def package_folder(package: str, name: str, extra: str) -> Path:
    """The folder of an installed package, without importing it. `InternalError` naming `extra` if it is not
    installed."""
    spec = find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        return Path(place)
    raise missing_library(name, extra)


@cache
def installed_version(name: str, extra: str, *distributions: str) -> str:
    """The version of the first installed one of `distributions`. `InternalError` naming `extra` if none is
    installed."""
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    raise missing_library(name, extra)
