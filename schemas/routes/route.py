"""Route records: a source, the model that scores its records, and a sink."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.schemas.errors import ModelServingError
from inferd.schemas.requests import Scalar

Mode = Literal["enrich", "result"]
OnError = Literal["dead-letters", "sink"]
Subjects = Literal["topic", "record", "topic-record"]
Tombstones = Literal["skip", "forward"]
EndOfTopic = Literal["latest", "earliest"]
DEFAULT_FIELD = "prediction"


class RouteNotFoundError(ModelServingError):
    """There is no route of this name."""

    code = "route_not_found"
    http_status = 404
    meaning = "the tenant has no route of that name"


class RouteExistsError(ModelServingError):
    """Another route of the group reads the same topic, or has this name."""

    code = "route_exists"
    http_status = 409
    meaning = "another route has the name, or reads the same topic"


class Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The format of a topic's records. Which options apply depends on the format."""

    name: str
    """Name of the format: `json`, `msgpack`, …"""
    schema: str | None = None
    """The schema of the values, for formats that have one and topics without a schema registry."""
    registry: bool = False
    """With `schema`: the records have the header of a schema registry, which has their writers' schemas; `schema` is
    the reader's, whose names, aliases and defaults apply."""
    message: str | None = None
    """The message of a Protobuf schema."""
    data: str | None = None
    """The format of the data of CloudEvents; the other options are then those of that format. None: as the content type
    of each event says."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a route reads."""

    topics: list[str]
    format: Format
    start: dict[str, list[int]] = {}
    """topic -> the first offset of each partition, for a group that has not committed one yet. Partitions that are
    added later start at 0. Resolved when the route is created, so that all workers agree."""
    tombstones: Tombstones = "skip"
    """Records without a value: skipped, or copied to the sink."""


class Sink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a route writes, and what.

    `enrich`: the original record plus `field`. `result`: the carried fields and the fields of the result at the top.
    """

    topic: str
    mode: Mode = "enrich"
    field: str = DEFAULT_FIELD
    """The added field. It holds a record of the prediction, `model_id`, `version` and, after a failure, `error`."""
    carry: dict[str, str] = {}
    """Name in the result -> path into the record, for the mode `result`."""
    subjects: Subjects = "topic"
    """How the subject of the sink's schema is named in a schema registry."""


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One route of a tenant; its record key on `routes` is `name`."""

    name: str
    source: Source
    model: str
    """A reference: `name`, `name:version` or `name@alias`."""
    sink: Sink
    features: dict[str, str] = {}
    """Feature -> path. A feature that is in neither map is read from the field of its name at the top."""
    constants: dict[str, Scalar] = {}
    """Feature -> its value for all records."""
    outputs: list[str] | None = None
    on_error: OnError = "dead-letters"
    created_at: str | None = None
