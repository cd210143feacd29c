"""Libraries of model formats that are extras of the package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from inferd.schemas.errors import InternalError


def missing_library(name: str, extra: str) -> InternalError:
    """The error of a format whose library is not installed; it names the extra that installs it."""
    return InternalError(f"{name} is not installed here: pip install 'inferd[{extra}]'")


def package_folder(package: str, name: str, extra: str) -> Path:
    """The folder of an installed package, which is not imported; `InternalError` naming `extra` if there is none."""
    spec = find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        return Path(place)
    raise missing_library(name, extra)


@cache
def installed_version(name: str, extra: str, *distributions: str) -> str:
    """The version of the first of `distributions` that is installed; `InternalError` naming `extra` if none is."""
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    raise missing_library(name, extra)
