"""Errors of the libraries that read schemas."""

from __future__ import annotations

CHARS_MAX = 300


def printable(error: Exception) -> str:
    """The start of an error's text, which may quote any character of a schema, lone surrogates included."""
    text = str(error)[:CHARS_MAX]
    return text if text.isprintable() else ascii(text)
