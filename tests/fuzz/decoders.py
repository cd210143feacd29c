"""The decoders of the wire as targets: requests, headers, model records, results, dead letters, model files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain, product
from random import Random
from typing import Any

import msgspec
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from inferd.schemas.codec import (
    UNREADABLE,
    decode_alias,
    decode_manifest,
    decode_request,
    decode_result,
    encode_alias,
    encode_manifest,
    encode_result,
    request_identity,
)
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.errors import ModelServingError
from inferd.schemas.headers import parse_headers, salvage_headers
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models.model import parse_artifact_key, parse_model_key
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.kafka.record_batches import expand
from tests.fixtures import poison
from tests.fixtures.poison import POISON
from tests.fuzz.checks import FindingError, check_error
from tests.fuzz.frames import Headers, pack_headers, pack_record, unpack_headers, unpack_record
from tests.fuzz.mutators import SHAPES
from tests.fuzz.target import Target
from tests.unit.schemas import reference, sample_records
from tests.unit.schemas.mutation import SMALL, request_bytes

CODECS: tuple[Codec, ...] = (MSGPACK, JSON)
SEEDS = 300
EXPANDED_BYTES_MAX = 1_048_576
SHORT_BYTES = 4_096
"""Limit for inputs of the reference decoder, which allocates any claimed size."""
BATCH_HEADER_BYTES = 61
COMPRESSIONS = range(5)


def targets() -> list[Target]:
    """Every decoder of the wire."""
    return [
        *chain.from_iterable((_request(codec), _request_twice(codec)) for codec in CODECS),
        *chain.from_iterable((_manifest(codec), _alias(codec), _result(codec)) for codec in CODECS),
        Target("headers", "record", _parse_headers, _header_seeds, weight=2.0),
        Target("dead-letter", "record", _parse_dead_letter, _dead_letter_seeds),
        Target("record-key", "bytes", _parse_key, _key_seeds),
        Target("model-file", "lines", read_model_file, _model_files, weight=0.05),
        Target("record-batch", "bytes", _expand, _batch_seeds, weight=0.5),
    ]


def _request(codec: Codec) -> Target:
    return Target(
        f"request-{codec}",
        SHAPES[codec],
        partial(_decode_request, codec=codec),
        partial(_request_seeds, codec),
        partial(request_bytes, codec=codec),
        weight=3.0,
    )


def _decode_request(data: bytes, codec: Codec) -> None:
    """Decodes; if that fails, reads the identity, which must succeed for any bytes."""
    try:
        decode_request(data, codec, DEFAULT_LIMITS)
    except ModelServingError as error:
        identity = request_identity(data, codec, DEFAULT_LIMITS)
        if isinstance(error, UNREADABLE) and identity != (None, None):
            raise FindingError(f"an identity {identity} of what cannot be read") from error
        raise


def _request_twice(codec: Codec) -> Target:
    return Target(
        f"request-reference-{codec}",
        SHAPES[codec],
        partial(_decode_twice, codec=codec),
        lambda: [seed for seed in _request_seeds(codec) if len(seed) <= SHORT_BYTES],
        partial(request_bytes, codec=codec),
        weight=0.5,
    )


def _decode_twice(data: bytes, codec: Codec) -> None:
    """The decoder and an independent one accept and reject the same bytes."""
    try:
        reference.request(data, codec, SMALL)
        readable = True
    except reference.RefusedError:
        readable = False
    try:
        decode_request(data, codec, SMALL)
    except ModelServingError as error:
        if readable:
            raise FindingError(f"refused: {error.message}; the reference takes it") from error
        raise
    if not readable:
        raise FindingError("taken; the reference refuses it")


def _request_seeds(codec: Codec) -> list[bytes]:
    random = Random(codec.name)
    wanted = poison.JSON if codec is JSON else ()
    bad = [poison.value or b"" for poison in POISON if tuple(poison.headers) == wanted]
    return bad + [request_bytes(random, codec) for _ in range(SEEDS)]


def _manifest(codec: Codec) -> Target:
    good = partial(_both_ways, sample_records.MANIFEST, encode_manifest, codec)
    return Target(f"manifest-{codec}", SHAPES[codec], partial(_decode_with, decode_manifest, codec), good, weight=0.5)


def _alias(codec: Codec) -> Target:
    return Target(
        f"alias-{codec}", SHAPES[codec], partial(_decode_with, decode_alias, codec), partial(_alias_seeds, codec)
    )


def _decode_with(decode: Callable[..., object], codec: Codec, data: bytes) -> None:
    decode(data, DEFAULT_LIMITS, codec)


def _both_ways(record: Any, encode: Callable[[Any, Codec], bytes], codec: Codec) -> list[bytes]:
    """The record, and copies of it with each field missing or wrong."""
    fields = msgspec.to_builtins(record)
    dump = msgspec.msgpack.encode if codec is MSGPACK else msgspec.json.encode
    wrong: tuple[Any, ...] = (None, -1, "x", [], {}, 1e300, [{}], "é" * 80)
    changed = [{**fields, name: value} for name, value in product(fields, wrong)]
    gone = [{key: value for key, value in fields.items() if key != name} for name in fields]
    return [encode(record, codec), *map(dump, changed), *map(dump, gone)]


def _alias_seeds(codec: Codec) -> list[bytes]:
    # Encoders of inferd never write this: weights whose sum exceeds float64.
    split = [{"version": 1, "weight": 1e308}, {"version": 2, "weight": 1e308}]
    encode = msgspec.json.encode if codec is JSON else msgspec.msgpack.encode
    return [*_both_ways(sample_records.ALIAS, encode_alias, codec), encode({"split": split})]


def _result(codec: Codec) -> Target:
    return Target(
        f"result-{codec}",
        SHAPES[codec],
        partial(decode_result, codec=codec),
        lambda: [encode_result(result, codec) for result in sample_records.RESULTS.values()],
    )


def _parse_headers(data: bytes) -> None:
    """Reads the headers; if that fails, reads the usable ones, which must succeed for any bytes."""
    headers, _ = unpack_headers(data)
    try:
        parse_headers(headers, DEFAULT_LIMITS)
    except ModelServingError:
        salvage_headers(headers, DEFAULT_LIMITS)
        raise


def _header_seeds() -> list[bytes]:
    good: Headers = [("content-type", b"application/json; charset=utf-8"), ("traceparent", b"00-1"), ("ce_id", b"7")]
    known: Headers = [("reply-to", b"a.b"), ("deadline", b"1767322800123"), ("x-own", b"1"), ("tracestate", None)]
    bad = [poison.headers for poison in POISON if poison.headers]
    return [
        pack_headers(headers) for headers in (good, known, [*good, *known], [*good, *good], [("x", b"")] * 65, *bad)
    ]


def _parse_dead_letter(data: bytes) -> None:
    value, headers, key = unpack_record(data)
    letter = DeadLetter.parse(key, value, headers)
    if DeadLetter.parse(key, value, letter.headers()) != letter:
        raise FindingError("a dead letter that is not what it was when it is read again")


def _dead_letter_seeds() -> list[bytes]:
    letter = sample_records.DEAD_LETTER
    headers = letter.headers()
    cut = [headers[:at] + headers[at + 1 :] for at in range(len(headers))]
    return [pack_record(letter.value or b"", some, letter.key) for some in (headers, headers * 2, *cut)]


def _parse_key(data: bytes) -> None:
    """Parses a key as that of a model record and as that of an artifact: at most one accepts it."""
    try:
        parse_model_key(data)
    except ModelServingError as error:
        check_error(error)
        parse_artifact_key(data)


def _key_seeds() -> list[bytes]:
    sha256 = sample_records.SHA256.encode()
    good = [b"flights/3", b"flights@champion", b"a.b-c_d/999999999", sha256 + b"/0", sha256 + b"/999999"]
    bad = [b"", b"../x/1", b"a/0", b"a/01", b"a/1\n", b"a@b@c", b"\xff/1", "а/1".encode(), sha256.upper() + b"/0"]
    return good + bad


def _expand(data: bytes) -> None:
    """Expands a record batch; shorter ones are never returned as a batch."""
    if len(data) >= BATCH_HEADER_BYTES and len(expand(data, EXPANDED_BYTES_MAX)) > EXPANDED_BYTES_MAX + len(data):
        raise FindingError("a batch expanded beyond its limit")


def _model_files() -> list[bytes]:
    from tests.fuzz.models import model_files  # importing LightGBM takes seconds, and other targets do not need it

    return model_files()


def _batch_seeds() -> list[bytes]:
    return [
        _batch(codec, value) for codec in COMPRESSIONS for value in (b"", b"x" * 200, bytes(2 * EXPANDED_BYTES_MAX))
    ]


def _batch(compression: int, value: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, 0, 10_000_000)
    builder.append(0, 1_000, b"k", value, [("h", b"1")])
    built = bytes(builder.build())
    return built if compression else built[:1_000]
