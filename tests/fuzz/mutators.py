"""Structure-aware mutations: values of MessagePack, tokens of JSON, lines of a model file."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Literal

from inferd.schemas.codecs import (
    JSON,
    MSGPACK,
    Codec,
)
from inferd.schemas.codecs.msgpack import header
from inferd.schemas.errors import MalformedError
from tests.fuzz.frames import pack_record, unpack_record
from tests.unit.schemas.mutation import JSON_PARTS, MSGPACK_PARTS, mutated

Shape = Literal["msgpack", "json", "lines", "record", "bytes"]
SHAPES: dict[Codec, Shape] = {MSGPACK: "msgpack", JSON: "json"}
SPANS_MAX = 400
LENGTH_MAX = 65_536
NAMES: tuple[bytes, ...] = (
    b"content-type",
    b"reply-to",
    b"deadline",
    b"Content-Type",
    b"correlation-id",
    b"traceparent",
    b"ce_id",
    b"ce_specversion",
    b"ce_type",
    b"inference-header-content-length",
    b"application/vnd.oip.v2+json",
    b"application/cloudevents+json",
    b"application/json",
    b"application/msgpack; charset=utf-8",
)
NUMBERS = (b"0", b"-1", b"1", b"nan", b"inf", b"1e308", b"2147483648", b"999999999999999", b"", b"0 0", b"1.5")
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")


def mutate(random: Random, data: bytes, shape: Shape, other: Callable[[], bytes]) -> bytes:
    """`data` after a few mutations; `other` provides another input to splice in."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        data = _MUTATORS[shape](random, data, other) if random.random() < 0.7 else _bytes(random, data, other)
    return data[:LENGTH_MAX]


def _bytes(random: Random, data: bytes, other: Callable[[], bytes]) -> bytes:
    if random.random() < 0.15:
        piece = other()
        start, end = _cut(random, piece)
        at = random.randint(0, len(data))
        return data[:at] + piece[start : min(end, start + 400)] + data[at:]
    return mutated(random, data, random.choice((MSGPACK, JSON)))


def _cut(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, random.randint(start, len(data))


def _msgpack(random: Random, data: bytes, other: Callable[[], bytes]) -> bytes:
    return _on_spans(random, data, _msgpack_spans(data), other, _msgpack_spans, MSGPACK_PARTS)


def _json(random: Random, data: bytes, other: Callable[[], bytes]) -> bytes:
    return _on_spans(random, data, _json_spans(data), other, _json_spans, JSON_PARTS)


def _on_spans(
    random: Random,
    data: bytes,
    spans: list[tuple[int, int]],
    other: Callable[[], bytes],
    spans_of: Callable[[bytes], list[tuple[int, int]]],
    parts: tuple[bytes, ...],
) -> bytes:
    """Removes, duplicates, truncates or replaces one span, with a span of the same or of another input."""
    if not spans:
        return mutated(random, data, MSGPACK)
    start, end = random.choice(spans)
    match random.randint(0, 4):
        case 0:
            piece = b""
        case 1:
            piece = data[start:end] * 2
        case 2:
            piece = random.choice(parts)
        case 3:
            a, b = random.choice(spans)
            piece = data[a:b]
        case _:
            donor = other()
            a, b = random.choice(spans_of(donor) or [(0, len(donor))])
            piece = donor[a:b]
    return data[:start] + piece + data[end:]


def _msgpack_spans(data: bytes) -> list[tuple[int, int]]:
    """Start and end of each value; containers are represented by their header."""
    spans: list[tuple[int, int]] = []
    at = 0
    while at < len(data) and len(spans) < SPANS_MAX:
        try:
            kind, length, body = header(data, at)
        except MalformedError:
            break
        end = body if kind in {"array", "map"} else body + length
        spans.append((at, min(end, len(data))))
        at = end
    return spans


def _json_spans(data: bytes) -> list[tuple[int, int]]:
    return [token.span() for token, _ in zip(_JSON_TOKEN.finditer(data), range(SPANS_MAX), strict=False)]


def _lines(random: Random, data: bytes, other: Callable[[], bytes]) -> bytes:
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    match random.randint(0, 4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            to = random.randrange(len(lines))
            lines[at], lines[to] = lines[to], lines[at]
        case 3:
            lines[at] = random.choice(other().split(b"\n"))
        case _:
            found = list(_NUMBER.finditer(lines[at]))
            if found:
                start, end = random.choice(found).span()
                lines[at] = lines[at][:start] + random.choice(NUMBERS) + lines[at][end:]
    return b"\n".join(lines)


def _record(random: Random, data: bytes, other: Callable[[], bytes]) -> bytes:
    value, headers, key = unpack_record(data)
    match random.randint(0, 5):
        case 0:
            key = random.choice((None, b"", b"k" * random.randint(1, 254)))
        case 1 if headers:
            at = random.randrange(len(headers))
            name, content = headers[at]
            headers[at] = (name, mutated(random, content or b"", JSON))
        case 2:
            headers.append((random.choice(NAMES).decode(), random.choice((*NAMES, b"5", b"1000", None))))
        case 3 if headers:
            headers.append(random.choice(headers))
        case 4:
            headers = headers[:-1]
        case _:
            donor = lambda: unpack_record(other())[0]  # noqa: E731
            value = (_json if value[:1] == b"{" else _msgpack)(random, value, donor)
    return pack_record(value, headers, key)


_MUTATORS: dict[Shape, Callable[[Random, bytes, Callable[[], bytes]], bytes]] = {
    "msgpack": _msgpack,
    "json": _json,
    "lines": _lines,
    "record": _record,
    "bytes": _bytes,
}
