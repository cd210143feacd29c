"""Who acts: the audit topic names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked for an action, and from where."""

    name: str
    """The name of an HTTP token, or user and machine."""
    origin: str
    """`http <address>`, or `kafka <client id>`."""


_CURRENT: ContextVar[Actor | None] = ContextVar("inferd_actor", default=None)


def current_actor() -> Actor | None:
    """The actor that this task acts for; None if it acts for none."""
    return _CURRENT.get()


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Actions inside are those of `actor`."""
    token = _CURRENT.set(actor)
    try:
        yield
    finally:
        _CURRENT.reset(token)
