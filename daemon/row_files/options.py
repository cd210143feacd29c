"""Options for reading a file of rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Format = Literal["csv", "ndjson", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "ndjson",
    ".jsonl": "ndjson",
    ".ndjson": "ndjson",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """None: detected from the file."""

    format: Format | None = None
    skip_columns: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding: str | None = None
    na: tuple[str, ...] | None = None
    """Texts that mean missing in every column, besides an empty field."""
    decimal: str = "."


def format_of(path: Path) -> Format | None:
    """The format named by the suffix of a file, compressed or not; None for an unknown suffix."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None
