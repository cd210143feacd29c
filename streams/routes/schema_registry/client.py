"""Asks a schema registry over HTTP: one request a call, no cache and no retry."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from inferd.schemas.connection import SchemaRegistryConnection
from inferd.schemas.errors import SchemaNotFoundError
from inferd.streams.connection import Reason, causes, tls_reason
from inferd.streams.routes.formats import Reference, RegisteredSchema, SchemaKind
from inferd.streams.routes.schema_registry.errors import (
    RegistryDeniedError,
    RegistryUnavailableError,
    SchemaRejectedError,
)

ANSWER_BYTES_MAX = 8 << 20
IMPORTS_MAX = 200
S = TypeVar("S")
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}
_REJECTED = {HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
_REMEDY = (
    "check INFERD_SCHEMA_REGISTRY_USERNAME and INFERD_SCHEMA_REGISTRY_PASSWORD, or INFERD_SCHEMA_REGISTRY_TOKEN, and"
    " what this user may do"
)


class _Reference(msgspec.Struct):
    name: str
    subject: str
    version: int


class _Schema(msgspec.Struct):
    schema: str
    schema_type: SchemaKind = msgspec.field(name="schemaType", default="AVRO")
    references: list[_Reference] = []
    id: int | None = None


class _Id(msgspec.Struct):
    id: int


class _Compatibility(msgspec.Struct):
    is_compatible: bool
    messages: list[str] = []


class _Problem(msgspec.Struct):
    message: str = ""
    error_code: int = 0


class SchemaRegistryClient:
    """A client of one registry. `close` ends its connections."""

    def __init__(self, connection: SchemaRegistryConnection) -> None:
        self._connection = connection
        self._url = connection.url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Address of the registry, without credentials."""
        return self._url

    async def schema(self, schema_id: int) -> RegisteredSchema:
        """The schema with this id, and all that it imports.

        `SchemaNotFoundError` if the registry does not have it; else the errors of this package.
        """
        found = await self._get(f"/schemas/ids/{schema_id}", _Schema, f"the registry has no schema with id {schema_id}")
        return await self._complete(found, schema_id)

    async def latest(self, subject: str) -> RegisteredSchema:
        """The latest schema under a subject. `SchemaNotFoundError` if there is none."""
        path = f"/subjects/{quote(subject, safe='')}/versions/latest"
        found = await self._get(path, _Schema, f"the registry has no subject {subject}")
        return await self._complete(found, found.id)

    async def register(self, subject: str, schema: RegisteredSchema) -> int:
        """The id of a schema under a subject, which is registered if it is not there.

        `SchemaRejectedError` if it is not compatible with the earlier ones, or not valid.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        status, answer = await self._ask("POST", path, _body_of(schema))
        if status in _REJECTED:
            raise SchemaRejectedError(
                f"subject {subject} of the schema registry rejects the schema: {_problem(answer).message[:300]}."
                " Set its compatibility so that a field may be added, or choose another sink or naming of subjects"
            )
        return self._decoded(status, answer, _Id).id

    async def incompatibility(self, subject: str, schema: RegisteredSchema) -> str | None:
        """Why a subject would not take a schema; None if it would, also because there is no such subject yet."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true"
        status, answer = await self._ask("POST", path, _body_of(schema))
        if status == HTTPStatus.NOT_FOUND and _problem(answer).error_code // 100 == HTTPStatus.NOT_FOUND:
            return None
        if status in _REJECTED:
            return _problem(answer).message[:300] or "it is not valid"
        found = self._decoded(status, answer, _Compatibility)
        return None if found.is_compatible else "; ".join(found.messages)[:300] or "it is not compatible"

    async def check(self) -> None:
        """Asks for the subjects: raises the errors of this package if the registry does not answer as one."""
        status, answer = await self._ask("GET", "/subjects?offset=0&limit=1")
        _ = self._decoded(status, answer, list[str])

    async def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _complete(self, found: _Schema, schema_id: int | None) -> RegisteredSchema:
        references = tuple(Reference(each.name, each.subject, each.version) for each in found.references)
        imported: dict[str, str] = {}
        await self._import(references, imported, (), schema_id)
        return RegisteredSchema(found.schema_type, found.schema, references, tuple(imported.items()), schema_id)

    async def _import(
        self,
        references: tuple[Reference, ...],
        imported: dict[str, str],
        within: tuple[str, ...],
        schema_id: int | None,
    ) -> None:
        for reference in references:
            if reference.name in imported:
                continue
            if reference.name in within or len(imported) + len(within) >= IMPORTS_MAX:
                raise SchemaNotFoundError(
                    f"schema {schema_id} of the registry imports itself, or more than {IMPORTS_MAX} others"
                )
            path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}"
            missing = f"the registry has no version {reference.version} of {reference.subject}, imported by {schema_id}"
            found = await self._get(path, _Schema, missing)
            below = tuple(Reference(each.name, each.subject, each.version) for each in found.references)
            await self._import(below, imported, (*within, reference.name), schema_id)
            imported[reference.name] = found.schema

    async def _get(self, path: str, answer_type: type[_Schema], missing: str) -> _Schema:
        status, answer = await self._ask("GET", path)
        if status == HTTPStatus.NOT_FOUND and _problem(answer).error_code // 100 == HTTPStatus.NOT_FOUND:
            raise SchemaNotFoundError(missing)
        return self._decoded(status, answer, answer_type)

    def _decoded(self, status: int, answer: bytes, answer_type: type[S]) -> S:
        if status != HTTPStatus.OK:
            problem = _problem(answer).message[:300] or "it gave no reason"
            raise RegistryUnavailableError(f"the schema registry {self._url} answered {status}: {problem}")
        try:
            return msgspec.json.decode(answer, type=answer_type)
        except msgspec.DecodeError as error:
            raise RegistryUnavailableError(
                f"{self._url} did not answer as a schema registry ({error}): check INFERD_SCHEMA_REGISTRY_URL"
            ) from None

    async def _ask(self, method: Literal["GET", "POST"], path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        try:
            session, headers = self._opened(), self._headers()
            async with session.request(
                method, self._url + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await _body(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            await self.close()  # certificates are read again
            raise self._unreachable(error) from error
        if response.status in _DENIED:
            raise RegistryDeniedError(f"the schema registry {self._url} answered {response.status}: {_REMEDY}")
        return response.status, answer

    def _unreachable(self, error: Exception) -> RegistryUnavailableError | RegistryDeniedError:
        if isinstance(error, TimeoutError):
            return RegistryUnavailableError(
                f"the schema registry {self._url} did not answer within {self._connection.timeout_s:g} s"
            )
        if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError | ConnectionError):
            return RegistryDeniedError(f"the credentials of the schema registry cannot be read: {error}")
        if (reason := self._tls_reason(error)) is not None:
            return RegistryUnavailableError(f"the schema registry {self._url} {reason.text(_setting_name)}")
        return RegistryUnavailableError(f"the schema registry {self._url} cannot be reached: {error}")

    def _tls_reason(self, error: Exception) -> Reason | None:
        """Why the TLS handshake failed; None if it did not."""
        for cause in causes(error):
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, aiohttp.ClientError):
                return tls_reason(cause, has_certificate=self._connection.ssl_certfile is not None)
        if isinstance(error, aiohttp.ServerDisconnectedError) and self._url.startswith("https:"):
            # aiohttp does not pass on the alert that follows the handshake of TLS 1.3.
            words = "closes the connection, as one does that does not accept our client certificate, or lack of one"
            return Reason("tls", words, ("ssl_certfile",))
        return None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = self._connection.ssl_context()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context if context is not None else True, limit=4),
                timeout=aiohttp.ClientTimeout(total=self._connection.timeout_s),
            )
        return self._session

    def _headers(self) -> Mapping[str, str]:
        headers = {"Accept": f"{CONTENT_TYPE}, application/json", "Content-Type": CONTENT_TYPE}
        if (authorization := self._connection.authorization()) is not None:
            headers["Authorization"] = authorization
        return headers


def _setting_name(option: str) -> str:
    """The setting for what a `Reason` says to check."""
    return "INFERD_SCHEMA_REGISTRY_" + ("URL" if option == "security_protocol" else option.upper())


def _body_of(schema: RegisteredSchema) -> bytes:
    body: dict[str, Any] = {"schema": schema.text}
    if schema.kind != "AVRO":
        body["schemaType"] = schema.kind
    if schema.references:
        body["references"] = [reference.to_json() for reference in schema.references]
    return msgspec.json.encode(body)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    parts = bytearray()
    async for part in response.content.iter_any():
        parts += part
        if len(parts) > ANSWER_BYTES_MAX:
            raise ValueError(f"it answered with more than {ANSWER_BYTES_MAX} bytes")
    return bytes(parts)


def _problem(answer: bytes) -> _Problem:
    try:
        return msgspec.json.decode(answer, type=_Problem)
    except msgspec.DecodeError:
        return _Problem()
