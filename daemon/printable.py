"""Escapes untrusted text for terminals and logs: no control characters, line breaks or invisible characters."""

from __future__ import annotations

CHARS_MAX = 2_000


def printable(text: str, chars_max: int = CHARS_MAX) -> str:
    """`text` with unprintable characters escaped, truncated to `chars_max`."""
    cut = text if len(text) <= chars_max else text[: chars_max - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else _escaped(char) for char in cut)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
