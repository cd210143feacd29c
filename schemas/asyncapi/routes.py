"""Routes as channels: the topics of other applications that inferd reads and writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from inferd.schemas.asyncapi.channels import Action, Channel
from inferd.schemas.cloud_events import REQUIRED
from inferd.schemas.headers import CLOUD_EVENT, OPEN_INFERENCE
from inferd.schemas.routes import CONTENT_TYPES, Format, Route

_AVRO, _PROTOBUF = "application/vnd.apache.avro;version=1.9.0", "application/vnd.google.protobuf;version=3"


def route_channels(tenant: str, routes: Iterable[Route]) -> tuple[Channel, ...]:
    """The channels of a tenant's routes: each source topic is received, each sink is sent."""
    return tuple(channel for route in routes for channel in _channels(tenant, route))


def _channels(tenant: str, route: Route) -> Iterable[Channel]:
    for topic in route.source.topics:
        yield _channel(tenant, route, topic, "receive", f"Records that the route {route.name} scores.", _source(route))
    added = f"with the field {route.sink.field}" if route.sink.mode == "enrich" else "of results"
    summary = f"Records {added}, written by the route {route.name}."
    yield _channel(tenant, route, route.sink.topic, "send", summary, _message(route.source.format, {}))


def _channel(tenant: str, route: Route, topic: str, action: Action, summary: str, raw: Mapping[str, Any]) -> Channel:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"route-{tenant}-{route.name}-{topic}")
    return Channel(name=name, address=topic, summary=summary, messages=(), actions=(action,), raw=raw)


def _source(route: Route) -> dict[str, Any]:
    given, name = route.source.format.schema, route.source.format.name
    if given is None or name not in ("avro", "protobuf"):
        return _message(route.source.format, {})
    schema = (
        {"schemaFormat": _AVRO, "schema": msgspec.json.decode(given)}
        if name == "avro"
        else {"schemaFormat": _PROTOBUF, "schema": given}
    )
    return _message(route.source.format, {"payload": schema})


def _message(format_: Format, payload: Mapping[str, Any]) -> dict[str, Any]:
    if format_.name == "cloudevents":
        return _event(format_)
    if format_.name == "oip":
        summary = "A request of the Open Inference Protocol V2, or in the sink a response or an error of it."
        return {"summary": summary, "contentType": OPEN_INFERENCE}
    return {"summary": f"A record in the format {format_.name}.", **_content_type(format_.name), **payload}


def _event(format_: Format) -> dict[str, Any]:
    of_data = "" if format_.data is None else f" Its data is in the format {format_.data}."
    attributes = {f"ce_{name}": {"type": "string"} for name in REQUIRED}
    return {
        "summary": f"A CloudEvent in binary or structured mode.{of_data}",
        "headers": {
            "type": "object",
            "description": f"In binary mode; the content-type of structured mode is {CLOUD_EVENT}.",
            "properties": attributes,
        },
        **_content_type(format_.data),
    }


def _content_type(name: str | None) -> dict[str, str]:
    types = CONTENT_TYPES.get(name or "")
    return {} if types is None else {"contentType": types[0]}
