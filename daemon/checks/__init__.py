"""Checks of `inferd doctor`: values from which the table, the JSON and the exit code are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Literal

import msgspec

from inferd.daemon.errors import error_text

State = Literal["ok", "warn", "fail", "skip"]
TIMEOUT_S = 30.0


class Check(msgspec.Struct, frozen=True):
    """The outcome of one check. `remedy` says how to fix a warning or a failure."""

    name: str
    state: State
    detail: str
    remedy: str | None = None


Checking = Callable[[], Awaitable[list[Check]]]


async def attempt(name: str, checking: Checking, timeout_s: float = TIMEOUT_S) -> list[Check]:
    """The checks that `checking` returns; a failed check if it raises or exceeds `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await checking()
    except TimeoutError:
        return [Check(name, "fail", f"no answer within {timeout_s:g} s", "check the broker's log")]
    except Exception as error:  # noqa: BLE001 (any error is the outcome of the check)
        return [Check(name, "fail", error_text(error), "fix this, and run inferd doctor again")]


async def attempt_all(checkings: Mapping[str, Checking], timeout_s: float = TIMEOUT_S) -> AsyncIterator[Check]:
    """Runs the checks one after the other and yields each outcome as soon as it is known."""
    for name, checking in checkings.items():
        for check in await attempt(name, checking, timeout_s):
            yield check
