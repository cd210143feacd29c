"""Assembles the AsyncAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.schemas.asyncapi.channels import CHANNELS, Channel
from inferd.schemas.asyncapi.json_schema import BASE64, schemas_of
from inferd.schemas.asyncapi.messages import BYTES, RECORD, Header, Message
from inferd.schemas.codecs import CONTENT_TYPE, MSGPACK, Codec, all_codecs
from inferd.schemas.connection import KafkaConnection

VERSION, BINDING = "3.0.0", "0.5.0"
ABOUT = (
    "Predictions, models and batch jobs over Apache Kafka. A payload in MessagePack is described as its decoded value,"
    " in which bytes are base64. Records without a content-type are MessagePack."
)
TENANT = "tenant"
SASL_TYPES = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The workers that the document is about."""

    version: str
    namespace: str
    tenants: Sequence[str]
    """Those that the reader of the document may know of."""
    connection: KafkaConnection


def describe(application: Application, others: Iterable[Channel] = ()) -> dict[str, Any]:
    """The AsyncAPI 3 document of an application; `others`: channels besides those of the streams, as of routes."""
    channels = (*CHANNELS, *others)
    messages = list(dict.fromkeys(message for channel in channels for message in channel.messages))
    types = list(dict.fromkeys(type_ for message in messages for type_ in _types(message)))
    schema_of, components = schemas_of(types)
    described = {
        name: _message(message, codec, schema_of) for message in messages for name, codec in _variants(message)
    }
    return {
        "asyncapi": VERSION,
        "info": {"title": "inferd", "version": application.version, "description": ABOUT},
        "defaultContentType": MSGPACK.content_type,
        "servers": _servers(application),
        "channels": {channel.name: _channel(channel, application) for channel in channels},
        "operations": {name: each for channel in channels for name, each in _operations(channel, channels)},
        "components": {
            "messages": described,
            "schemas": components,
            "parameters": {TENANT: _tenant(application)},
        },
    }


def _types(message: Message) -> tuple[Any, ...]:
    if message.payload is None:
        return ()
    return message.payload if isinstance(message.payload, tuple) else (message.payload,)


def _variants(message: Message) -> list[tuple[str, Codec | None]]:
    """The names of a message in the document: one for each codec that it may be in."""
    if message.content_type != RECORD:
        return [(message.name, None)]
    return [(f"{message.name}-{codec.name}", codec) for codec in all_codecs()]


def _message(message: Message, codec: Codec | None, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    content_type = message.content_type if codec is None else codec.content_type
    key = {"type": "string", "description": message.key}
    if message.key_pattern is not None:
        key["pattern"] = message.key_pattern
    described: dict[str, Any] = {
        "name": message.name,
        "title": message.name if codec is None else f"{message.name} ({codec.title})",
        "summary": message.summary,
        "contentType": content_type,
        "headers": _headers(message, content_type, codec),
        "payload": _payload(message, schema_of),
        "bindings": {"kafka": {"key": key, "bindingVersion": BINDING}},
    }
    if any(header.name == "correlation-id" for header in message.headers):
        described["correlationId"] = {"location": "$message.header#/correlation-id"}
    if message.examples:
        described["examples"] = [{"name": each.name, "payload": each.payload} for each in message.examples]
    return described


def _payload(message: Message, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    schemas = [schema_of[type_] for type_ in _types(message)] or [{**BASE64, "description": "any bytes"}]
    if message.tombstone:
        schemas.append({"type": "null", "description": "a tombstone: deletes what the key names"})
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _headers(message: Message, content_type: str, codec: Codec | None) -> dict[str, Any]:
    """The schema of the headers. Only MessagePack needs no content-type, nor do bytes."""
    headers = [*message.headers]
    if content_type != BYTES:
        required = codec is not MSGPACK
        headers.insert(0, Header(CONTENT_TYPE, "of the value", {"const": content_type}, required=required))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            header.name: {"type": "string", "description": header.meaning, **header.schema} for header in headers
        },
    }
    if required_names := [header.name for header in headers if header.required]:
        schema["required"] = required_names
    return schema


def _servers(application: Application) -> dict[str, Any]:
    connection = application.connection
    server: dict[str, Any] = {"protocol": "kafka-secure" if connection.security_protocol.endswith("SSL") else "kafka"}
    if connection.security_protocol.startswith("SASL"):
        server["security"] = [_security(connection)]
    hosts = connection.bootstrap_servers.split(",")
    return {f"kafka-{place}": {"host": host.strip(), **server} for place, host in enumerate(hosts)}


def _security(connection: KafkaConnection) -> dict[str, Any]:
    if connection.sasl_mechanism != "OAUTHBEARER":
        return {"type": SASL_TYPES[connection.sasl_mechanism]}
    if connection.oauth is None or connection.oauth.token_url is None:
        return {"type": "http", "scheme": "bearer"}
    scopes = {connection.oauth.scope: ""} if connection.oauth.scope else {}
    flow = {"tokenUrl": connection.oauth.token_url, "availableScopes": scopes}
    return {"type": "oauth2", "flows": {"clientCredentials": flow}}


def _channel(channel: Channel, application: Application) -> dict[str, Any]:
    names = [name for message in channel.messages for name, _ in _variants(message)]
    kafka: dict[str, Any] = {"bindingVersion": BINDING}
    if channel.compacted is not None:
        kafka["topicConfiguration"] = {"cleanup.policy": ["compact" if channel.compacted else "delete"]}
    described: dict[str, Any] = {
        "address": channel.address.replace("{namespace}", application.namespace),
        "summary": channel.summary,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": kafka},
    }
    if channel.raw is not None:
        described["messages"] = {"record": channel.raw}
    if f"{{{TENANT}}}" in channel.address:
        described["parameters"] = {TENANT: {"$ref": f"#/components/parameters/{TENANT}"}}
    if channel.internal:
        described["tags"] = [{"name": "internal"}]
    return described


def _operations(channel: Channel, channels: Sequence[Channel]) -> Iterable[tuple[str, dict[str, Any]]]:
    for action in channel.actions:
        operation: dict[str, Any] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel.name}"},
            "summary": channel.summary,
        }
        if action == "receive" and channel.reply is not None:
            operation["reply"] = {"channel": {"$ref": f"#/channels/{channel.reply}"}}
        yield f"{action}-{channel.name}", operation


def _tenant(application: Application) -> dict[str, Any]:
    tenants = list(application.tenants)
    return {"description": "the tenant", "enum": tenants, "default": tenants[0]}
