"""Routes: existing topics that are scored in their own format. Route records, their checks and their codec."""

from inferd.schemas.routes.checks import check_route, check_route_name
from inferd.schemas.routes.codec import decode_route, encode_route, parse_route_key
from inferd.schemas.routes.content_types import CONTENT_TYPES, format_of
from inferd.schemas.routes.path import Path, Special, parse_path
from inferd.schemas.routes.relations import circle, conflict, in_order, is_own, own_topic_refusal
from inferd.schemas.routes.route import (
    EndOfTopic,
    Format,
    Mode,
    OnError,
    Route,
    RouteExistsError,
    RouteNotFoundError,
    Sink,
    Source,
    Subjects,
    Tombstones,
)

__all__ = [
    "CONTENT_TYPES",
    "EndOfTopic",
    "Format",
    "Mode",
    "OnError",
    "Path",
    "Route",
    "RouteExistsError",
    "RouteNotFoundError",
    "Sink",
    "Source",
    "Special",
    "Subjects",
    "Tombstones",
    "check_route",
    "check_route_name",
    "circle",
    "conflict",
    "decode_route",
    "encode_route",
    "format_of",
    "in_order",
    "is_own",
    "own_topic_refusal",
    "parse_path",
    "parse_route_key",
]
