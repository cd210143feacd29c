"""The version of inferd."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def inferd_version() -> str:
    """Version of the installed distribution; `unknown` in a source tree that is not installed."""
    try:
        return version("inferd")
    except PackageNotFoundError:
        return "unknown"
