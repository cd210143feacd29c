"""Text from outside made fit for a terminal or a log: nothing in it moves the cursor, breaks the line, or hides."""

from __future__ import annotations

CHARS_MAX = 2_000


def printable(text: str, chars_max: int = CHARS_MAX) -> str:
    """`text` with every character that is not printable written as its escape, and cut to `chars_max`."""
    cut = text if len(text) <= chars_max else text[: chars_max - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else _escaped(char) for char in cut)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
