"""Routes: topics of others, scored in their own format into enriched or result topics."""

from inferd.streams.routes.admission import RouteKey, admit, route_rights, route_unit
from inferd.streams.routes.allowed import is_allowed, patterns_of, topics_refusal
from inferd.streams.routes.processor import RouteContext, RouteProcessor
from inferd.streams.routes.scoring import RouteScorer
from inferd.streams.routes.service import RouteParts, RouteService
from inferd.streams.routes.source_schemas import check_schemas
from inferd.streams.routes.table import RouteTable

__all__ = [
    "RouteContext",
    "RouteKey",
    "RouteParts",
    "RouteProcessor",
    "RouteScorer",
    "RouteService",
    "RouteTable",
    "admit",
    "check_schemas",
    "is_allowed",
    "patterns_of",
    "route_rights",
    "route_unit",
    "topics_refusal",
]
