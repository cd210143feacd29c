"""Whole numbers in the query of a URL."""

from __future__ import annotations

from aiohttp import web

from inferd.schemas.errors import InvalidValueError


def number_of(request: web.Request, name: str, default: int, most: int) -> int:
    """The number from 1 to `most` that a parameter has; `default` without it."""
    number = optional_number(request, name, most)
    return default if number is None else number


def optional_number(request: web.Request, name: str, most: int, least: int = 1) -> int | None:
    """Like `number_of`, from `least`; None without the parameter."""
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
        raise InvalidValueError(f"query {name}={text[:40]!r}: expected a whole number from {least} to {most}")
    return int(text)
