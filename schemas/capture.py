"""Captured requests: what a model was given, and what it predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import MalformedError

HEADERS = (MSGPACK.header,)
"""The headers of a record of `capture`."""


class CapturedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request that a model has scored, in MessagePack."""

    id: str
    model_id: str
    version: int
    scored_at: int
    """Unix milliseconds."""
    alias: str | None = None
    """The alias that the request named, or `champion` for a bare name; None if it named a version."""
    alias_revision: int | None = None
    """The revision of the alias that chose the version."""
    variant: str | None = None
    """`champion` or `canary`; None if the request named no alias."""
    features: Mapping[str, Sequence[float | str | bool | None]]
    """By feature, the value of each row as the model got it: with defaults filled in, and clipped; None is missing."""
    outputs: Mapping[str, Sequence[Any]]
    """By output, the value of each row."""


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(CapturedRequest)


def encode_captured(captured: CapturedRequest) -> bytes:
    """The value of a record of `capture`."""
    return _encoder.encode(captured)


def decode_captured(value: bytes | None) -> CapturedRequest:
    """The captured request in a record's value; `MalformedError` if there is none."""
    try:
        captured = _decoder.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"not a captured request: {error}") from None
    columns = [*captured.features.values(), *captured.outputs.values()]
    if len(set(map(len, columns))) > 1:
        raise MalformedError("not a captured request: its columns differ in length")
    return captured


def columns_of(captured: CapturedRequest, outputs: Sequence[str]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The columns of a request's rows: about it, its features, and the outputs, which get a prefix if a feature has the
    same name."""
    rows = len(next(iter(captured.features.values())))
    about = {
        "id": captured.id,
        "version": captured.version,
        "alias": captured.alias,
        "variant": captured.variant,
        "scored_at": datetime.fromtimestamp(captured.scored_at / 1_000, UTC).isoformat(timespec="milliseconds"),
    }
    for name, value in about.items():
        yield _free(name, captured), [value] * rows
    yield from captured.features.items()
    for name in outputs:
        yield _free(name, captured), captured.outputs.get(name, [None] * rows)


def _free(name: str, captured: CapturedRequest) -> str:
    while name in captured.features:
        name = f"inferd_{name}"
    return name
