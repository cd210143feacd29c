"""Binds the parameters of a user's function to the path, query and body of a request, by name and type.

A parameter named in the path comes from the path; one annotated `web.Request` is the request itself. The other
parameters of GET and DELETE are query parameters; those of POST, PUT and PATCH are fields of the body. A single body
parameter is the whole body, unless the body is an object with just that field; annotated `bytes`, it is the raw body.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from aiohttp import web

from inferd.daemon.http.core import IDENTITY, LIMITS, codec_of_request, content_coding, read_body
from inferd.daemon.http.user_routes.return_values import response_of
from inferd.daemon.printable import printable
from inferd.schemas.codecs import (
    DECODE_ERRORS,
    Codec,
    Decoders,
    check_nesting,
    decode_error,
)
from inferd.schemas.errors import InvalidValueError, MalformedError, ServerError
from inferd.schemas.limits import DEFAULT_LIMITS

Source = Literal["path", "query", "body", "request"]
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_PATH_NAMES = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
_PLACE = re.compile(r" - at `(?:key in )?\$(?P<place>[^`]*)`$")
_VALUE = Decoders(Any)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function and its source; `default` is `inspect.Parameter.empty` if it is required."""

    name: str
    source: Source
    kind: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def convert(self, value: Any, *, lax: bool) -> Any:
        """Converts `value` to the parameter's type; `lax` parses numbers from strings. Raises `InvalidValueError`."""
        try:
            return msgspec.convert(value, self.kind, strict=not lax, str_keys=True)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            raise InvalidValueError(f"{self.source} {_located(self.name, str(error))}") from None


@dataclass(frozen=True, slots=True)
class BoundFunction:
    """A user's function with its bound parameters."""

    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Calls the function and converts its return value to a response; a synchronous function runs in a thread."""
        arguments = await self.arguments(request)
        if inspect.iscoroutinefunction(self.function):
            value = await self.function(**arguments)
        else:
            value = await asyncio.to_thread(self.function, **arguments)
            if inspect.isawaitable(value):
                value = await value
        return response_of(value)

    async def arguments(self, request: web.Request) -> dict[str, Any]:
        """The function's arguments by name.

        Raises `MalformedError` for a body that cannot be decoded, and `InvalidValueError` for a field that is missing,
        unknown or of the wrong type.
        """
        fixed = [p for p in self.parameters if p.source in ("path", "request")]
        if any(p.source == "request" for p in fixed) and content_coding(request) != IDENTITY:
            # `request.read()`, `.text()` and `.json()` return this, as if aiohttp had decompressed the body.
            request._read_bytes = await read_body(request, request.app[LIMITS].body)  # noqa: SLF001  (no public setter)
        found = {p.name: request if p.source == "request" else _of_path(p, request) for p in fixed}
        if query := [p for p in self.parameters if p.source == "query"]:
            found |= _fields(query, {name: request.query.getall(name) for name in request.query}, _of_query)
        if body := [p for p in self.parameters if p.source == "body"]:
            found |= await _of_body(body, request)
        return found


def bind(method: str, path: str, function: Callable[..., Any]) -> BoundFunction:
    """Binds the parameters of a route's function; raises `ServerError` if that is impossible."""
    where = f"route {method} {path}, function {getattr(function, '__name__', function)!r}"
    names = _PATH_NAMES.findall(path)
    try:
        signature, kinds = inspect.signature(function), typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise ServerError(
            f"{where}: its annotations cannot be resolved ({error}): use types that are defined at module level"
        ) from None
    parameters = tuple(_parameter(method, names, p, kinds.get(p.name), where) for p in signature.parameters.values())
    if missing := sorted(set(names) - {p.name for p in parameters}):
        raise ServerError(f"{where}: the path has {missing[0]!r}, but the function has no such parameter")
    if len(raw := [p for p in parameters if p.source == "body"]) > 1 and any(p.kind is bytes for p in raw):
        raise ServerError(f"{where}: a bytes parameter is the whole body, so it must be the only body parameter")
    return BoundFunction(function, parameters)


def _parameter(method: str, names: list[str], given: inspect.Parameter, kind: Any, where: str) -> Parameter:
    if given.kind in (given.VAR_POSITIONAL, given.VAR_KEYWORD, given.POSITIONAL_ONLY):
        raise ServerError(f"{where}: parameter {given} cannot be bound by name; use a plain parameter")
    if inspect.isclass(kind) and issubclass(kind, web.BaseRequest):
        return Parameter(given.name, "request", kind, given.default)
    source: Source = "path" if given.name in names else "body" if method in WITH_BODY else "query"
    if kind is None:
        kind = str if source in ("path", "query") else Any
    try:
        msgspec.json.Decoder(kind)
    except TypeError as error:
        raise ServerError(f"{where}: parameter {given.name!r} has an unsupported type: {error}") from None
    return Parameter(given.name, source, kind, given.default)


def _of_path(parameter: Parameter, request: web.Request) -> Any:
    return parameter.convert(request.match_info[parameter.name], lax=True)


def _of_query(parameter: Parameter, values: list[str]) -> Any:
    """A single value is tried as a scalar first, then as a list of one."""
    if len(values) == 1:
        try:
            return parameter.convert(values[0], lax=True)
        except InvalidValueError as error:
            try:
                return parameter.convert(values, lax=True)
            except InvalidValueError:
                raise error from None
    return parameter.convert(values, lax=True)


async def _of_body(parameters: list[Parameter], request: web.Request) -> dict[str, Any]:
    body = await read_body(request, request.app[LIMITS].body)
    only = parameters[0] if len(parameters) == 1 else None
    if only is not None and only.kind is bytes:
        return {only.name: body}
    if not body and all(not p.required for p in parameters):
        return {p.name: p.default for p in parameters}
    value = _decoded(body, codec_of_request(request))
    if only is not None and not (isinstance(value, dict) and value.keys() == {only.name}):
        return {only.name: _whole(only, value)}
    if not isinstance(value, dict):
        names = ", ".join(p.name for p in parameters)
        raise InvalidValueError(f"body: expected an object with {names}, got {type(value).__name__}")
    return _fields(parameters, value, lambda p, given: p.convert(given, lax=False))


def _whole(parameter: Parameter, value: Any) -> Any:
    """The whole body as the single parameter; an object that the type does not accept is taken for a set of fields."""
    try:
        return parameter.convert(value, lax=False)
    except InvalidValueError:
        if isinstance(value, dict) and (parameter.name in value or not _is_object(parameter.kind)):
            return _fields([parameter], value, lambda p, given: p.convert(given, lax=False))[parameter.name]
        raise


def _is_object(kind: Any) -> bool:
    """Whether a type accepts objects, so that an error inside an object is reported as such."""
    plain = typing.get_origin(kind) or kind
    if kind is Any or not inspect.isclass(plain):
        return kind is Any
    return issubclass(plain, Mapping | msgspec.Struct) or dataclasses.is_dataclass(plain) or typing.is_typeddict(plain)


def _fields(
    parameters: list[Parameter], values: Mapping[str, Any], convert: Callable[[Parameter, Any], Any]
) -> dict[str, Any]:
    """The arguments from named values; raises `InvalidValueError` if one is missing or unknown."""
    source = parameters[0].source
    names = [p.name for p in parameters]
    if missing := [p.name for p in parameters if p.required and p.name not in values]:
        raise InvalidValueError(f"{source} {missing[0]}: the field is missing; expected: {', '.join(names)}")
    if unknown := [str(name) for name in values if name not in names]:
        raise InvalidValueError(f"{source} {printable(unknown[0], 80)}: unknown field; expected: {', '.join(names)}")
    return {p.name: convert(p, values[p.name]) if p.name in values else p.default for p in parameters}


def _decoded(body: bytes, codec: Codec) -> Any:
    if not body:
        raise MalformedError(f"body: it is empty; expected {codec.name}")
    check_nesting(body, codec, "body")
    try:
        value = _VALUE[codec](body)
        if codec.repeats_key(body, len(value) if isinstance(value, dict) else 0, ()):
            raise ValueError("duplicate key")
    except DECODE_ERRORS as error:
        raise decode_error(body, codec, error, "body", DEFAULT_LIMITS.depth_max) from None
    return value


def _located(name: str, text: str) -> str:
    """An error text of msgspec with the location in front: `input_batch[3]: Expected …`."""
    match = _PLACE.search(text)
    place = match["place"] if match else ""
    return f"{name}{place}: {printable(_PLACE.sub('', text), 300)}"
