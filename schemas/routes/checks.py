"""Checks of a route record that need neither the model nor the broker."""

from __future__ import annotations

import re
from collections.abc import Iterable

from inferd.schemas.errors import InvalidIdError, InvalidValueError
from inferd.schemas.requests import NAME_PATTERN, ModelReference, check_outputs
from inferd.schemas.routes.path import parse_path
from inferd.schemas.routes.route import DEFAULT_FIELD, Route

TOPICS_MAX = 100
FIELD_CHARS_MAX = 256
RESULT_FIELDS = frozenset({"model_id", "version", "error"})
"""Fields of the result besides its outputs: carried fields have other names."""
_NAME = re.compile(NAME_PATTERN, re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


def check_route_name(name: str) -> str:
    """Return `name` if it is valid for a route, else raise `InvalidIdError`."""
    if not _NAME.fullmatch(name):
        raise InvalidIdError(f"route name {name[:80]!r}: expected 1 to 64 of A-Z a-z 0-9 . _ -, not only dots")
    return name


def check_route(route: Route) -> Route:
    """Return a valid route. `InvalidIdError` for its name or its model, `InvalidValueError` for everything else."""
    check_route_name(route.name)
    ModelReference.parse(route.model)
    _check_topics(route)
    _check_start(route)
    for path in (*route.features.values(), *route.sink.carry.values()):
        parse_path(path)
    if both := sorted(route.features.keys() & route.constants):
        raise InvalidValueError(f"feature {both[0]!r} has both a path and a constant")
    outputs = check_outputs(route.outputs) if route.outputs is not None else ("prediction",)
    _check_sink(route, outputs)
    return route


def _check_topics(route: Route) -> None:
    topics = route.source.topics
    if not 1 <= len(topics) <= TOPICS_MAX or len({*topics}) != len(topics):
        raise InvalidValueError(f"source: {len(topics)} topics; expected 1 to {TOPICS_MAX} different ones")
    for topic in (*topics, route.sink.topic):
        if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
            raise InvalidValueError(f"topic {topic[:80]!r}: expected 1 to 249 of A-Z a-z 0-9 . _ -")
    if route.sink.topic in topics:
        raise InvalidValueError(
            f"topic {route.sink.topic} is both source and sink: the route would read its own output"
        )


def _check_start(route: Route) -> None:
    for topic, offsets in route.source.start.items():
        if topic not in route.source.topics:
            raise InvalidValueError(f"start: {topic[:80]!r} is no topic of the source")
        if any(offset < 0 for offset in offsets):
            raise InvalidValueError(f"start: an offset of {topic} is negative")


def _check_sink(route: Route, outputs: Iterable[str]) -> None:
    sink = route.sink
    for name in (sink.field, *sink.carry):
        if not 1 <= len(name) <= FIELD_CHARS_MAX or not _is_text(name):
            raise InvalidValueError(f"sink: the field {name[:80]!r} needs 1 to {FIELD_CHARS_MAX} characters")
    if sink.mode == "enrich":
        if sink.carry:
            raise InvalidValueError("sink: fields are carried in the mode result; enrich keeps the whole record")
        for feature, text in route.features.items():
            if parse_path(text).steps[:1] == (sink.field,):
                raise InvalidValueError(f"feature {feature!r} is read from {text}, which is the field that is added")
        return
    if sink.field != DEFAULT_FIELD:
        raise InvalidValueError(f"sink: no field {sink.field[:80]!r} is added in the mode result; omit it")
    if taken := sorted(sink.carry.keys() & (RESULT_FIELDS | {*outputs})):
        raise InvalidValueError(f"sink: the carried field {taken[0]!r} has the name of a field of the result")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
