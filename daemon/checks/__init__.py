"""What `inferd doctor` checks: each check is a value, so that table, JSON and exit code are made from one list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Literal

import msgspec

from inferd.daemon.errors import words_of

State = Literal["ok", "warn", "fail", "skip"]
TIMEOUT_S = 30.0


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at; `remedy` says what to do where it is not as it should be."""

    name: str
    state: State
    detail: str
    remedy: str | None = None


Checking = Callable[[], Awaitable[list[Check]]]


async def attempt(name: str, checking: Checking, timeout_s: float = TIMEOUT_S) -> list[Check]:
    """What `checking` finds; a failed check where it takes too long or is refused."""
    try:
        async with asyncio.timeout(timeout_s):
            return await checking()
    except TimeoutError:
        return [Check(name, "fail", f"no answer within {timeout_s:g} s", "look into the broker's log")]
    except Exception as error:  # noqa: BLE001 (whatever a check meets is what it found)
        return [Check(name, "fail", words_of(error), "mend this, and run inferd doctor again")]


async def attempt_all(checkings: Mapping[str, Checking], timeout_s: float = TIMEOUT_S) -> AsyncIterator[Check]:
    """The checks one after the other, each as soon as it is known."""
    for name, checking in checkings.items():
        for check in await attempt(name, checking, timeout_s):
            yield check
