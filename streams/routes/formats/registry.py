"""The registry of record formats. `docs/architecture.md` shows how to add one."""

from __future__ import annotations

from inferd.schemas.errors import InvalidValueError
from inferd.streams.routes.formats.avro import AVRO_FORMAT
from inferd.streams.routes.formats.cloud_events import CloudEventsFormat
from inferd.streams.routes.formats.format import RecordFormat
from inferd.streams.routes.formats.json import JSON_FORMAT
from inferd.streams.routes.formats.msgpack import MSGPACK_FORMAT
from inferd.streams.routes.formats.open_inference import INFERENCE_FORMAT
from inferd.streams.routes.formats.protobuf import PROTOBUF_FORMAT

_FORMATS: dict[str, RecordFormat] = {}


def register(record_format: RecordFormat) -> None:
    """Adds a format. `ValueError` if its name is taken."""
    if _FORMATS.setdefault(record_format.name, record_format) is not record_format:
        raise ValueError(f"format {record_format.name!r} is registered already")


def unregister(name: str) -> None:
    """Removes a format."""
    del _FORMATS[name]


def all_formats() -> tuple[RecordFormat, ...]:
    """All formats."""
    return tuple(_FORMATS.values())


def format_named(name: str) -> RecordFormat:
    """The format of this name; `InvalidValueError`, listing the known ones, if there is none."""
    try:
        return _FORMATS[name]
    except KeyError:
        raise InvalidValueError(f"format {name[:80]!r} is unknown; known are {', '.join(sorted(_FORMATS))}") from None


register(JSON_FORMAT)
register(AVRO_FORMAT)
register(PROTOBUF_FORMAT)
register(MSGPACK_FORMAT)
register(INFERENCE_FORMAT)
register(CloudEventsFormat([JSON_FORMAT, MSGPACK_FORMAT, AVRO_FORMAT, PROTOBUF_FORMAT]))
