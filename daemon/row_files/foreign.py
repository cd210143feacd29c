"""Files that are not read: what they are, and how to convert them."""

from __future__ import annotations

import re

START_BYTES = 64
_WORKBOOK = "save the sheet as CSV UTF-8, or with pandas: pd.read_excel(FILE).to_csv('rows.csv', index=False)"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"PK\x03\x04.{26}(?:\[Content_Types\]|_rels/|docProps/|xl/)", "an Excel workbook", _WORKBOOK),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)", _WORKBOOK),
    (rb"PK\x03\x04", "a ZIP archive", "unpack it first: unzip FILE"),
    (rb"BZh[1-9]1AY&SY", "compressed with bzip2", "unpack it first (bunzip2 -k FILE), or use gzip"),
    (rb"\xfd7zXZ", "compressed with xz", "unpack it first (unxz -k FILE), or use gzip"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first (unzstd FILE), or use gzip"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first: 7z x FILE"),
    (rb"PAR1[^\x20-\x7e]", "a Parquet file", "give --format parquet"),
    (rb"ARROW1\x00", "an Arrow (Feather) file", "convert it: pd.read_feather(FILE).to_parquet('rows.parquet')"),
    (rb"Obj\x01", "an Avro file", "convert it to Parquet or NDJSON"),
    (rb"SQLite format 3\x00", "an SQLite database", "export the table: sqlite3 -header -csv FILE 'SELECT …'"),
)
"""(first bytes as a regular expression, what it is, how to convert it)"""


def describe_foreign(start: bytes) -> str | None:
    """What a file is that begins with `start`, and how to convert it; None if it may be text."""
    for pattern, kind, advice in _KINDS:
        if re.match(pattern, start, re.DOTALL):
            return f"{kind}: {advice}"
    return None
