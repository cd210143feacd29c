"""Normalizes the text of a model file: byte order mark and line ends."""

from __future__ import annotations

import codecs
import re

_TREE_SIZES = re.compile(rb"\ntree_sizes=[^\n]*")


def plain_text(content: bytes) -> bytes:
    """`content` as LightGBM reads it: without a byte order mark, and with line feeds as line ends.

    If line ends of trees are converted, the header's `tree_sizes` (in bytes) become wrong and are removed; the library
    then reads the trees sequentially.
    """
    text = content.removeprefix(codecs.BOM_UTF8)
    if b"\r\n" not in text:
        return text
    converted = text.replace(b"\r\n", b"\n")
    only_in_tail = b"\r" not in text[: text.rfind(b"\nTree=") + 1]
    return converted if only_in_tail else _TREE_SIZES.sub(b"", converted, count=1)
