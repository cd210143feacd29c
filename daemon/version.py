"""The version of inferd."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def inferd_version() -> str:
    """Version of the installed distribution; `unknown` where it runs from a bare source tree."""
    try:
        return version("inferd")
    except PackageNotFoundError:
        return "unknown"
