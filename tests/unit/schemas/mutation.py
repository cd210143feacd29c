"""Requests as producers write them, and corrupted ones: everything is drawn from one `Random`."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

import msgpack

from inferd.schemas.codecs import MSGPACK, Codec
from inferd.schemas.limits import Limits
from tests.unit.schemas.reference import DTYPES, OUTPUTS

SMALL = Limits(rows_max=20, features_max=40, values_max=200, string_chars_max=50)
"""Limits that small messages reach."""

NAMES = ("a", "b", "dep:delay", "shape", "é", 'x"y', "dtype", "data", "c", "d")
TEXTS = ("JFK", "é", "a:b", 'q"\\', "", "[{,", "x" * 40)
MSGPACK_PARTS = (
    b"\xa2id\xa1a",
    b"\xd9\x02id",
    b"\xd6\xff\x00\x00\x00\x00",
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x91" * 20,
    b"\xde\x00\x02",
    b"\xdc\x00\x03",
    b"\xcf" + b"\xff" * 8,
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xca?\x80\x00\x00",
    b"\xa3\xed\xa0\x80",
    b"\xc1",
    b"\xc0",
    b"\x80",
)
JSON_PARTS = (
    b'"id":"a",',
    b'"\\u0069d":"b",',
    b"NaN",
    b"-Infinity",
    b"1e400",
    b"-0",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b"[1]",
    b'{"a":1,"a":2}',
    b"1" * 330,
    b"\xef\xbb\xbf",
    b"null",
    b"[[",
    b"[" * 20 + b"]" * 20,
    b"{}",
    b",",
    b'"',
    b"\\",
)


def request_bytes(random: Random, codec: Codec) -> bytes:
    """A request of any layout; occasionally with a repeated key, an invalid id, or too many rows."""
    fields: dict[str, Any] = {
        "model_id": random.choice(["m", "m:3", "m@champion"] * 8 + ["a/b"]),
        "input_data": _input_data(random, codec),
    }
    if random.random() < 0.5:
        fields["id"] = random.choice(["a:b-1", "x" * 64] * 12 + ["x" * 65, "é", ""])
    if random.random() < 0.4:
        fields["outputs"] = random.sample([*OUTPUTS, "embedding", "é:0"], random.randint(1, 4))
    items = list(fields.items())
    random.shuffle(items)
    if codec is MSGPACK:
        return _pack(random, dict(items), random.choice([0, 0, 0, 2, 4]))
    return _dump(random, dict(items), random.choice([",", ", ", " ,\n"])).encode()


def mutated(random: Random, value: bytes, codec: Codec) -> bytes:
    """`value` with zero to two random corruptions."""
    data = bytearray(value)
    parts = MSGPACK_PARTS if codec is MSGPACK else JSON_PARTS
    for _ in range(random.choice([0, 0, 1, 1, 1, 2])):
        start = random.randint(0, len(data))
        end = min(len(data), start + random.randint(1, 8))
        match random.randint(0, 6):
            case 0 if start < end:
                data[start] ^= 1 << random.randint(0, 7)
            case 1 if start < end:
                data[start] = random.randint(0, 255)
            case 2:
                del data[start:end]
            case 3:
                del data[start:]
            case 4:
                data[start:start] = random.choice(parts)
            case 5:
                data[start:end] = random.choice(parts)
            case _:
                place = random.randint(0, len(data))
                data[place:place] = data[start:end]
    return bytes(data)


def _scalar(random: Random) -> Any:
    match random.randint(0, 6):
        case 0:
            return random.random() * 10.0 ** random.randint(-300, 300)
        case 1:
            return random.randint(-(2**63), 2**64 - 1)
        case 2:
            return random.randint(-5, 300)
        case 3:
            return random.choice([True, False, None])
        case 4:
            return random.choice(TEXTS)
        case _:
            return float(random.randint(0, 9))


def _input_data(random: Random, codec: Codec) -> Any:
    width = random.randint(0, 6) if random.random() < 0.9 else random.randint(7, 45)
    height = random.choice([0, 1, 2, 3, 19, 25])
    match random.randint(0, 4):
        case 0:
            return [_scalar(random) for _ in range(width)]
        case 1:
            ragged = random.random() < 0.05
            return [[_scalar(random) for _ in range(width + (ragged and row == 1))] for row in range(height)]
        case 2:
            return _named_row(random, width)
        case 3:
            return [_named_row(random, random.randint(0, 10)) for _ in range(height)]
        case _:
            return _tensor(random, codec)


def _named_row(random: Random, width: int) -> dict[str, Any]:
    names = random.sample(NAMES, width) if width <= len(NAMES) else [f"f{n}" for n in range(width)]
    return {name: _scalar(random) for name in names}


def _tensor(random: Random, codec: Codec) -> dict[str, Any]:
    dtype = random.choice(list(DTYPES))
    rows, features = random.choice([(random.randint(0, 4), random.randint(0, 4)), (18, 11), (19, 11), (21, 1), (1, 41)])
    size = rows * features * DTYPES[dtype]
    data = bytes(random.choices([0, 1], k=size)) if dtype == "|b1" else random.randbytes(size)
    text = base64.b64encode(data).decode()
    return {"dtype": dtype, "shape": [rows, features], "data": data if codec is MSGPACK else text}


def _pairs(random: Random, fields: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs = list(fields.items())
    if pairs and random.random() < 0.03:
        key, value = random.choice(pairs)
        pairs.insert(random.randint(0, len(pairs)), (key, value if random.random() < 0.5 else pairs[0][1]))
    return pairs


def _pack(random: Random, value: Any, width: int) -> bytes:
    """MessagePack with headers of any width."""
    if isinstance(value, dict):
        pairs = _pairs(random, value)
        body = b"".join(_pack(random, key, 0) + _pack(random, item, random.choice([0, width])) for key, item in pairs)
        return _header(len(pairs), width, 0x80, 0xDE) + body
    if isinstance(value, list):
        body = b"".join(_pack(random, item, random.choice([0, width])) for item in value)
        return _header(len(value), width, 0x90, 0xDC) + body
    packed: bytes = msgpack.packb(value)
    return packed


def _header(count: int, width: int, short: int, long: int) -> bytes:
    if count < 16 and not width:
        return bytes([short | count])
    return bytes([long + 1]) + count.to_bytes(4, "big") if width == 4 else bytes([long]) + count.to_bytes(2, "big")


def _dump(random: Random, value: Any, comma: str) -> str:
    """JSON with white space, and strings with random escapes."""
    if isinstance(value, dict):
        pairs = _pairs(random, value)
        return (
            "{" + comma.join(f"{_dump(random, key, comma)}: {_dump(random, item, comma)}" for key, item in pairs) + "}"
        )
    if isinstance(value, list):
        return "[" + comma.join(_dump(random, item, comma) for item in value) + "]"
    if isinstance(value, str) and value and random.random() < 0.03:
        return f'"\\u{ord(value[0]):04x}{json.dumps(value[1:])[1:]}'
    return json.dumps(value, ensure_ascii=random.random() < 0.5)
