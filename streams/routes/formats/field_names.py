"""Names of fields that formats with schemas allow."""

from __future__ import annotations

import re

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.routes import Sink

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def check_field_names(sink: Sink) -> None:
    """`InvalidValueError` if a field of the sink has a name that fields of Avro and of Protobuf cannot have."""
    for name in (sink.field, *sink.carry):
        if not _NAME.fullmatch(name):
            raise InvalidValueError(
                f"sink: the field {name[:80]!r} is no name of Avro or Protobuf: letters, digits and _"
            )
