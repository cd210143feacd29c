"""Rate limit for repeated log messages: a repeat is counted instead of logged, and the count is logged per window."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_S = 30.0
SAME_NAME_MAX = 20
"""Messages with the same event name and different fields, per window."""
KEYS_MAX = 1_000


class MessageKey(NamedTuple):
    """Identity of a message: messages with equal keys are repeats."""

    logger: str
    level: str
    event: str
    fields: Hashable = None
    """None: all messages with that event name."""


@dataclass(slots=True)
class _Window:
    opened: float
    shown: int = 0
    hidden: int = 0


class RepeatLimiter:
    """Admits a message once per window and counts its repeats; at most `SAME_NAME_MAX` per event name and window.

    Only a message equal to the last one with its event name is a repeat: alternating messages are all logged.
    Time is an argument (monotonic seconds). Memory is bounded: beyond `KEYS_MAX` keys the oldest is evicted.
    """

    def __init__(self, window_s: float = WINDOW_S, same_name_max: int = SAME_NAME_MAX) -> None:
        self.window_s = window_s
        self._same_name_max = same_name_max
        self._windows: OrderedDict[MessageKey, _Window] = OrderedDict()
        self._last: OrderedDict[MessageKey, MessageKey] = OrderedDict()
        """The last message by event name."""

    def admit(self, key: MessageKey, now: float) -> bool:
        """Whether to log the message; if not, it is counted."""
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
        """Keys whose window has ended, and the number of messages hidden in it. Such a key opens a new window."""
        over = [(key, window) for key, window in list(self._windows.items()) if now - window.opened >= self.window_s]
        for key, window in over:
            if window.hidden:
                # Repeats of the same message are still counted; other messages with its event name are logged again.
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
