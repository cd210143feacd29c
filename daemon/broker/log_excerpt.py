"""Excerpts of the log of a process that failed."""

from __future__ import annotations

import re
from pathlib import Path

TAIL_LINES = 15
CAUSE_CHARS_MAX = 240  # so that a message that quotes the cause has room for the remedy behind it


def read_from(path: Path, start: int) -> str:
    """Text of the file from byte `start` on; empty if there is no file."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")


def log_tail_of(text: str) -> str:
    """The last `TAIL_LINES` lines, without stack frames."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("\t")]
    return "\n".join(lines[-TAIL_LINES:])


def likely_cause(text: str) -> str:
    """The line that most likely names the cause: the first exception, else the first error, else the last line that is
    no warning of Java. At most `CAUSE_CHARS_MAX` characters."""
    cause = _likely_line(text)
    return cause if len(cause) <= CAUSE_CHARS_MAX else cause[: CAUSE_CHARS_MAX - 1] + "…"


def _likely_line(text: str) -> str:
    found = re.search(r"^(?:Exception in thread \S+ )?(\S+(?:Exception|Error): .*)", text, re.MULTILINE) or re.search(
        r"^.*? ERROR (.*)", text, re.MULTILINE
    )
    if found is not None:
        return found[1].strip()
    lines = [line for line in text.strip().splitlines() if not line.startswith("WARNING: ")]
    return lines[-1] if lines else "no output"
