"""Paths into a record: `a.b[0].c` in its value; `$key`, `$timestamp` and `$headers.name` beside it."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Literal

import msgspec

from inferd.schemas.errors import InvalidValueError

Special = Literal["key", "timestamp", "header"]
Step = str | int
"""The name of a field or the key of a map, or the index of an item of an array."""
CHARS_MAX = 1_024
STEPS_MAX = 32
INDEX_MAX = 1_000_000
_NAME = re.compile(r"[^.\[\]\"$\s][^.\[\]\"\s]*")
_INDEX = re.compile(r"\[(0|[1-9][0-9]{0,6})\]")
_QUOTED = re.compile(r"\[(\"(?:[^\"\\]|\\.)*\")\]")
_HEADERS = "$headers."


class Path(msgspec.Struct, frozen=True):
    """The place of one value in a record."""

    text: str
    """As the user wrote it."""
    steps: tuple[Step, ...] = ()
    """From the top of the value; empty for a special path."""
    special: Special | None = None
    """Set if the value is not in the record's value."""
    header: str = ""
    """The name of the header, for the special path `header`."""

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The name that a value has if it is carried to a result: the last name of the path."""
        if self.special is not None:
            return self.header or self.special
        return next(step for step in reversed(self.steps) if isinstance(step, str))


@lru_cache(maxsize=4_096)
def parse_path(text: str) -> Path:
    """Parse a path. Names with other characters are quoted in brackets as in JSON: `order["unit.price"]`.

    `InvalidValueError` if `text` is not a path.
    """
    if len(text) > CHARS_MAX:
        raise InvalidValueError(f"path {text[:80]!r}…: {len(text)} characters; at most {CHARS_MAX} are allowed")
    if text.startswith("$"):
        return _special(text)
    steps = _steps(text)
    if len(steps) > STEPS_MAX:
        raise InvalidValueError(f"path {text[:80]!r}: {len(steps)} steps; at most {STEPS_MAX} are allowed")
    return Path(text, steps)


def _special(text: str) -> Path:
    if text == "$key":
        return Path(text, special="key")
    if text == "$timestamp":
        return Path(text, special="timestamp")
    if text.startswith(_HEADERS) and len(text) > len(_HEADERS):
        return Path(text, special="header", header=text[len(_HEADERS) :])
    raise InvalidValueError(f"path {text[:80]!r}: expected $key, $timestamp or $headers.NAME after a $")


def _steps(text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    at = 0
    while at < len(text):
        if steps and text[at] == ".":
            at += 1
            matched = _NAME.match(text, at)
        else:
            matched = None if steps else _NAME.match(text, at)
        if matched:
            steps.append(matched[0])
        elif index := _INDEX.match(text, at):
            if not steps or int(index[1]) > INDEX_MAX:
                raise _invalid(text, at)
            steps.append(int(index[1]))
            matched = index
        elif quoted := _QUOTED.match(text, at):
            steps.append(_unquoted(text, at, quoted[1]))
            matched = quoted
        else:
            raise _invalid(text, at)
        at = matched.end()
    if not steps:
        raise InvalidValueError("a path is empty: name a field of the record, for instance order.amount")
    return tuple(steps)


def _unquoted(text: str, at: int, quoted: str) -> str:
    try:
        name: str = json.loads(quoted)
        name.encode()
    except ValueError:
        raise _invalid(text, at) from None
    return name


def _invalid(text: str, at: int) -> InvalidValueError:
    return InvalidValueError(
        f"path {text[:80]!r}: invalid at character {at}; expected names and indexes such as order.items[0].price;"
        ' a name with other characters is quoted: order["unit.price"]'
    )
