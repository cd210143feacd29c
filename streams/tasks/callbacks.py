"""Callbacks of futures whose exceptions are not swallowed: asyncio itself only logs them."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
OnCrash = Callable[[BaseException], None]
"""Ends the process, which commits nothing unfinished; the argument is the reason."""


def when_done(future: Future[T], callback: Callable[[Future[T]], Any], on_crash: OnCrash) -> None:
    """Calls `callback` once `future` is done; an exception of the callback is passed to `on_crash`."""

    def guarded(done: Future[T]) -> None:
        try:
            callback(done)
        except BaseException as error:  # noqa: BLE001  # the process must not continue after any of them
            on_crash(error)

    future.add_done_callback(guarded)
