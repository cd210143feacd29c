"""Keeps one message from filling a log: said once, then counted, and the count said every so often."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_S = 30.0
SAME_NAME_MAX = 20
"""Messages of one name with different fields, in one window."""
KEYS_MAX = 1_000


class MessageKey(NamedTuple):
    """What makes two messages the same."""

    logger: str
    level: str
    event: str
    fields: Hashable = None
    """None stands for every message of that event name together."""


@dataclass(slots=True)
class _Window:
    opened: float
    shown: int = 0
    hidden: int = 0


class RepeatLimiter:
    """Admits a message once a window and counts its repeats; of one event name, `SAME_NAME_MAX` a window.

    A message is a repeat only of the last one of its name: what changes to and fro is said each time.
    Time is an argument (seconds that never go back). Memory is bounded: beyond `KEYS_MAX` the oldest key is forgotten.
    """

    def __init__(self, window_s: float = WINDOW_S, same_name_max: int = SAME_NAME_MAX) -> None:
        self.window_s = window_s
        self._same_name_max = same_name_max
        self._windows: OrderedDict[MessageKey, _Window] = OrderedDict()
        self._last: OrderedDict[MessageKey, MessageKey] = OrderedDict()
        """By name, the message that came last."""

    def admit(self, key: MessageKey, now: float) -> bool:
        """Whether the message is to be shown; counted where it is not."""
        name_key = key._replace(fields=None)
        same, last = self._windows.get(key), self._last.get(name_key)
        self._last[name_key] = key
        if len(self._last) > KEYS_MAX:
            self._last.popitem(last=False)
        if same is not None and same.shown and last == key:
            same.hidden += 1
            return False
        name = self._window(name_key, now)
        if name.shown >= self._same_name_max:
            name.hidden += 1
            return False
        name.shown += 1
        self._window(key, now).shown += 1
        return True

    def due(self, now: float) -> list[tuple[MessageKey, int]]:
        """Keys whose window is over and what was hidden in it; a key that hid something opens a new window."""
        over = [(key, window) for key, window in list(self._windows.items()) if now - window.opened >= self.window_s]
        for key, window in over:
            if window.hidden:
                # The very same message goes on being counted; others of its name are shown again.
                self._windows[key] = _Window(now, shown=0 if key.fields is None else window.shown)
            else:
                self._windows.pop(key, None)
        return [(key, window.hidden) for key, window in over if window.hidden]

    def _window(self, key: MessageKey, now: float) -> _Window:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(now)
            if len(self._windows) > KEYS_MAX:
                self._windows.popitem(last=False)
        return window
