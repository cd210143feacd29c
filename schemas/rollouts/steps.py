"""The steps of a rollout: `shadow:30m`, `10%:2h`, `10%:2h:1000`, `100%`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from inferd.schemas.errors import InvalidValueError

STEPS_MAX = 12
"""Each step changes the alias, and the way back must stay in its history (`HISTORY_MAX`)."""
HOLD_S_MAX = 30 * 86_400
REQUESTS_MAX = 10**9
SHARE_MIN, SHARE_FULL = 0.001, 100.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_STEP = re.compile(
    r"(?P<share>shadow|(?P<percent>[0-9]{1,3}(\.[0-9]{1,3})?)%)"
    r"(:(?P<hold>[0-9]{1,7})(?P<unit>[smhd])(:(?P<requests>[0-9]{1,10}))?)?",
    re.ASCII,
)
_EXPECTED = (
    "expected shadow:TIME or PERCENT%:TIME, then optionally :REQUESTS, such as 10%:30m or 10%:2h:1000;"
    " times are 90s, 30m, 2h or 1d"
)


class Step(msgspec.Struct, frozen=True):
    """One step of a rollout."""

    percent: float | None
    """The share of the requests that the new version answers, in (0, 100]; None: it is the shadow of the other one."""
    hold_s: int
    """How long it lasts at least."""
    requests_min: int | None
    """How many requests the new version must have had in it; None: by the setting of the rollout."""

    def __str__(self) -> str:
        share = "shadow" if self.percent is None else f"{self.percent:g}%"
        requests = "" if self.requests_min is None else f":{self.requests_min}"
        return f"{share}:{_hold_text(self.hold_s)}{requests}" if self.hold_s or requests else share


@lru_cache(maxsize=1_024)
def parse_step(text: str) -> Step:
    """Parse one step; `InvalidValueError` if it is none."""
    match = _STEP.fullmatch(text.strip())
    if match is None:
        raise InvalidValueError(f"step {text[:40]!r}: {_EXPECTED}")
    percent = None if match["percent"] is None else float(match["percent"])
    if percent is not None and not SHARE_MIN <= percent <= SHARE_FULL:
        raise InvalidValueError(f"step {text[:40]!r}: the share must be from {SHARE_MIN:g}% to 100%")
    hold_s = int(match["hold"] or 0) * _UNITS[match["unit"] or "s"]
    requests = None if match["requests"] is None else int(match["requests"])
    if hold_s > HOLD_S_MAX or (requests or 0) > REQUESTS_MAX:
        raise InvalidValueError(f"step {text[:40]!r}: at most 30d, and {REQUESTS_MAX} requests")
    return Step(percent, hold_s, requests)


def parse_steps(steps: str | Iterable[str]) -> list[Step]:
    """Parse the steps of a rollout, separated by commas or in a list.

    `InvalidValueError` unless each is a step, a shadow comes only first, shares grow, all but the last one have a time,
    and the last one is `100%`.
    """
    parsed = [parse_step(text) for text in (steps.split(",") if isinstance(steps, str) else steps)]
    if not 1 <= len(parsed) <= STEPS_MAX:
        raise InvalidValueError(f"steps: {len(parsed)}; expected 1 to {STEPS_MAX}")
    _check_order(parsed)
    for step in parsed[:-1]:
        if not step.hold_s and not step.requests_min:
            raise InvalidValueError(f"step {str(step)!r}: say how long it lasts, such as {step}:30m")
    return parsed


def _check_order(steps: Sequence[Step]) -> None:
    shares = [0.0 if step.percent is None else step.percent for step in steps]
    for step, before, share in zip(steps[1:], shares, shares[1:], strict=False):
        if share <= before:
            raise InvalidValueError(f"step {str(step)!r}: a shadow comes first, and each share is larger than the last")
    if shares[-1] != SHARE_FULL:
        raise InvalidValueError(f"steps: the last one is {str(steps[-1])!r}; it must be 100%, such as {steps[-1]},100%")


def _hold_text(seconds: int) -> str:
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}" if seconds else "0s"
