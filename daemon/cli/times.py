"""Times on the command line: in ISO 8601, or as a duration from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_later(_ctx: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """A time, or a duration after now; None without a text."""
    return None if text is None else _time(text, sign=1)


def parse_earlier(_ctx: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """A time, or a duration before now; None without a text."""
    return None if text is None else _time(text, sign=-1)


def _time(text: str, sign: int) -> datetime:
    try:
        if duration := _DURATION.fullmatch(text):
            return datetime.now(UTC) + sign * timedelta(**{_UNITS[duration[2]]: float(duration[1])})
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r}: expected a duration (90s, 30m, 2h, 1d) or 2026-12-24T18:00Z") from error
