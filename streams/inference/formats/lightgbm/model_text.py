"""The text of a model file as LightGBM writes it, whatever an editor or a copy between systems made of it."""

from __future__ import annotations

import codecs
import re

_TREE_SIZES = re.compile(rb"\ntree_sizes=[^\n]*")


def plain_text(content: bytes) -> bytes:
    """`content` without a byte order mark, and with line feeds alone as line ends: what the library is given.

    The header's `tree_sizes` count the bytes before a conversion of line ends. They are removed where that happened:
    the library then reads one tree after the other.
    """
    text = content.removeprefix(codecs.BOM_UTF8)
    if b"\r\n" not in text:
        return text
    converted = text.replace(b"\r\n", b"\n")
    only_in_tail = b"\r" not in text[: text.rfind(b"\nTree=") + 1]
    return converted if only_in_tail else _TREE_SIZES.sub(b"", converted, count=1)
