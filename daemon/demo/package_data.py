"""Data sets inside installed packages, which are read without importing the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from inferd.schemas.errors import ServerError


def data_folder(package: str, what: str) -> Path:
    """The folder `data` of a package; `ServerError` naming `what` and the remedy if it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(f"the demo's {what} are not installed: pip install 'inferd[broker,demo]'")
    return Path(next(iter(spec.submodule_search_locations))) / "data"
