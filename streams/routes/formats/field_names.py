"""Names of fields that formats with schemas allow."""

from __future__ import annotations

import re

from inferd.schemas.errors import InvalidValueError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def check_field_name(name: str) -> str:
    """`name` if a field of Avro and of Protobuf may have it, else `InvalidValueError`."""
    if not _NAME.fullmatch(name):
        raise InvalidValueError(f"sink: the field {name[:80]!r} is no name of Avro or Protobuf: letters, digits and _")
    return name
