"""Checks of a route's options."""

from __future__ import annotations

from collections.abc import Collection

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.routes import Format, Route

_OPTIONS = tuple(name for name in Format.__struct_fields__ if name != "name")


def check_options(route: Route, known: Collection[str] = ()) -> None:
    """`InvalidValueError` for an option that is not `known`, which would have no effect."""
    options = route.source.format
    for name in _OPTIONS:
        if getattr(options, name) and name not in known:
            raise InvalidValueError(f"format {options.name} has no option {name!r}")
    if route.sink.subjects != "topic" and "registry" not in known:
        raise InvalidValueError(f"format {options.name} has no option 'subjects': no schemas are registered")
