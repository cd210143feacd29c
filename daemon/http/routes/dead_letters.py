"""`/dead-letters`: rejected records, and the reasons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import json_response, tenant_of
from inferd.daemon.http.routes.query_numbers import number_of
from inferd.schemas.errors import InvalidValueError

LISTED_MAX, LISTED_DEFAULT = 200, 20
_PLACE = re.compile(r"(?P<partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})", re.ASCII)


class Source(Struct, frozen=True):
    """Where the original record was read from; `timestamp`: its own, in Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class OmittedPart(Struct, frozen=True):
    """A part of the original record that was too large to keep."""

    part: str
    bytes: int
    sha256: str


class DeadLetterSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rejected record: where its copy is, and why it was rejected."""

    partition: int
    offset: int
    timestamp: int
    """When it was rejected, in Unix milliseconds."""
    key: str | None
    value_bytes: int
    code: str | None = None
    message: str | None = None
    source: Source | None = None
    worker: str | None = None
    omitted: list[OmittedPart] = []
    problem: str | None = None
    """Why the copy itself cannot be read: another program wrote it."""


class DeadLetterDetails(DeadLetterSummary, frozen=True, kw_only=True):
    """A rejected record with its headers and its value."""

    headers: list[tuple[str, str | None]]
    value_base64: bytes | None
    value_format: Literal["empty", "json", "msgpack", "binary"]
    value: Any
    """Decoded; null if it is neither JSON nor MessagePack."""


class DeadLettersAnswer(Struct, frozen=True):
    """The newest dead letters, newest first."""

    dead_letters: list[DeadLetterSummary]


class DeadLetters(Protocol):
    """The rejected records of a tenant. Raises `UnavailableError` (503) if the broker does not respond."""

    async def newest(self, tenant: str, last: int, code: str | None) -> Sequence[dict[str, Any]]:
        """The newest ones, newest first; only those with the code, if one is given, of the newest some thousand."""

    async def show(self, tenant: str, partition: int, offset: int) -> dict[str, Any]:
        """One of them with its value; `NotFoundError`."""


DEAD_LETTERS: web.AppKey[DeadLetters] = web.AppKey("dead_letters", DeadLetters)


def add_dead_letters(app: web.Application, dead_letters: DeadLetters) -> None:
    """Adds the routes, backed by `dead_letters`."""
    app[DEAD_LETTERS] = dead_letters
    app.router.add_get("/dead-letters", list_dead_letters)
    app.router.add_get("/dead-letters/{place}", show_dead_letter)


async def list_dead_letters(request: web.Request) -> web.StreamResponse:
    """The newest dead letters."""
    tenant, last = tenant_of(request), number_of(request, "last", LISTED_DEFAULT, LISTED_MAX)
    found = await request.app[DEAD_LETTERS].newest(tenant, last, request.query.get("code"))
    return json_response({"dead_letters": found})


async def show_dead_letter(request: web.Request) -> web.StreamResponse:
    """One dead letter with its headers and value."""
    tenant, place = tenant_of(request), request.match_info["place"]
    match = _PLACE.fullmatch(place)
    if match is None:
        raise InvalidValueError(f"{place[:60]!r} is not PARTITION:OFFSET, such as 2:17")
    return json_response(await request.app[DEAD_LETTERS].show(tenant, int(match["partition"]), int(match["offset"])))
