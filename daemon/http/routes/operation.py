"""Description of an operation of the HTTP API: its path, parameters, bodies, responses and errors as Python types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

from inferd.daemon.http.core import Role
from inferd.schemas.errors import ModelServingError

JSON, BYTES = "application/json", "application/octet-stream"
RECORD = "record"
"""Stands for the content types of all codecs."""
Error = type[ModelServingError]


class Fault(Struct):
    """A stable code, and a message for people."""

    code: str
    message: str


class ErrorAnswer(Struct):
    """The body of every error response, except those of the Open Inference Protocol."""

    error: Fault


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query, header or path parameter."""

    name: str
    place: Literal["path", "query", "header"]
    type: Any
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """A header of responses; not all responses have it."""

    name: str
    type: Any
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    name: str
    summary: str
    roles: tuple[Role, ...]
    """The roles of which a token needs one."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Body type by media type, or `RECORD`."""
    answers: Mapping[int, Any] = field(default_factory=dict)
    """Response type by status; a tuple means one of them; None means not JSON."""
    media_types: tuple[str, ...] = (JSON,)
    """Media types of successful responses."""
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[ResponseHeader, ...] = ()
    """Headers of responses, errors included."""
    errors: tuple[Error, ...] = ()
    error_body: Any = ErrorAnswer
    """Type of the body of error responses."""
    public: bool = False
    """Whether the route needs no token."""
