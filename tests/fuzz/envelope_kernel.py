"""Random and damaged requests through the envelope kernel and the typed decoder, its equivalent in Python.

The requests and the kernel's output end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import random
import time
from functools import cache
from typing import Any

import msgspec
import numpy as np

from inferd.schemas.codec import decode_envelope
from inferd.schemas.codecs import DECODE_ERRORS, JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference.features import ENCODINGS, ID_BYTES, valid_ids
from inferd.streams.inference.kernels import EnvelopeKernel, PlainRequests, RowKernel, RowSchema, library
from inferd.streams.inference.kernels.envelopes import ENVELOPE
from tests.fuzz.mutators import SHAPES, mutate
from tests.fuzz.row_kernel import WRITERS
from tests.fuzz.tree_kernel import Guarded

REQUESTS = 48
BYTES_MAX = 4_096
ID_CHARS_MAX = 12
IDS = ("r", "a:b-1", "0" * ID_CHARS_MAX, "A_b.c")
ODD_IDS: tuple[Any, ...] = ("", "0" * (ID_CHARS_MAX + 1), "é", "a b", 'a"', "a\\", 7, None, ["r"])
MODELS = ("m", "model@champion", "model:3", "é", "")
ROWS: tuple[Any, ...] = (
    [1.5, None, True, "AA"], {"a": 1.0, "b": "AA"}, {"b": "AA", "a": 2}, [0.5, "AA"], {"a": 3.5}, [], {}, [0.25] * 20,
    {f"f{n}": n / 7 for n in range(20)},
    {"a": "x" * 300},
)  # fmt: skip
ODD_ROWS: tuple[Any, ...] = (
    [[1.0], [2.0]], [{"a": 1}], {"a": [1]}, 3, None, "AA", {"a": "]"}, ["}", "{"], {'a"]': 1}, ["\\"], ["\x1f"],
)  # fmt: skip
PARTS = (b'"id":"r",', b"]", b"}", b'"', b"\\", b",", b" ", b'"model_id"', b"\x81\xa2id\xa1r", b"\xff", b"\x1f")


@cache
def kernel() -> EnvelopeKernel:
    return EnvelopeKernel(library(), ID_BYTES, ID_CHARS_MAX, BYTES_MAX)


@cache
def row_kernel(names: tuple[str, str] = ("a", "b")) -> RowKernel:
    """Reads some of the rows: a number and a category."""
    category = names.index("b")
    return RowKernel(library(), RowSchema(names, (False, False), {category: {"AA": 1.0}}, (0, 1), False))


def request(rng: random.Random) -> tuple[dict[str, Any], bool]:
    """A request, and whether the kernel has to read it."""
    usual = rng.random() < 0.6
    body: dict[str, Any] = {"model_id": rng.choice(MODELS), "input_data": rng.choice(ROWS)}
    if rng.random() < 0.8:
        body["id"] = rng.choice(IDS)
    if not usual:
        changes = {"id": ODD_IDS, "input_data": ODD_ROWS, "outputs": (["raw"], [], None), "model_id": ('"', 3, "\n")}
        for name in rng.sample(list(changes), rng.randrange(1, 3)):
            body[name] = rng.choice(changes[name])
    names = list(body)
    rng.shuffle(names)
    return {name: body[name] for name in names}, usual


def encoded(rng: random.Random, codec: Codec) -> tuple[bytes, bool]:
    body, usual = request(rng)
    data = rng.choice(WRITERS[codec])(body)
    if rng.random() < 0.5:
        return mutate(rng, data, SHAPES[codec], lambda: rng.choice(PARTS)), False
    return data, usual and (b"\\" not in data or codec is MSGPACK)


def compare_once(rng: random.Random, guarded: Guarded) -> tuple[int, int]:
    """Compares some requests; returns how many were compared, and how many the kernel read."""
    codec = rng.choice((JSON, MSGPACK))
    made = [encoded(rng, codec) for _ in range(rng.choice((1, REQUESTS)))]
    values = [data for data, _ in made]
    content = guarded(np.frombuffer(b"".join(values) or b"\0", np.uint8))
    ends = guarded(np.cumsum([len(value) for value in values], dtype=np.int64))
    envelopes = guarded(np.zeros(len(values), ENVELOPE))
    starts = guarded(ends - np.array([len(value) for value in values]))
    rows = rng.choice((None, row_kernel()))
    matrix = guarded(np.zeros((len(values), row_kernel().features)))
    kernel().read_into(envelopes, ENCODINGS[codec], content.ctypes.data, starts, ends, rows, matrix)
    guarded.release()
    found, left = kernel().read(ENCODINGS[codec], values, rows)
    for plain in found:
        check_rows(codec, plain)
    read = {
        place: (plain.model_id, id_, row)
        for plain in found
        for place, id_, row in zip(plain.indexes.tolist(), plain.ids, plain.rows, strict=True)
    }
    assert sorted([*read, *left]) == list(range(len(values)))
    for place, (data, must) in enumerate(made):
        assert place in read or not must, f"not read: {data!r}"
        if place in read:
            check(codec, data, *read[place])
    return len(values), len(read)


def check_rows(codec: Codec, plain: PlainRequests) -> None:
    """Rows that were read with their envelopes are those that the row kernel reads."""
    if plain.read is not None:
        matrix, fits = plain.read.rows()
        expected, which = row_kernel().read(ENCODINGS[codec], plain.rows)
        assert fits.tolist() == which.tolist(), f"{list(plain.rows)}"
        assert matrix.tobytes() == expected.tobytes(), f"{list(plain.rows)}"


def check(codec: Codec, data: bytes, model_id: str, id_: str | None, row: bytes) -> None:
    """What the kernel says of a request is what the typed decoder says, unless the row itself is invalid."""
    assert len(data) <= BYTES_MAX
    assert id_ is None or (valid_ids([id_], ID_CHARS_MAX)), f"{data!r}: id {id_!r}"
    try:
        envelope = decode_envelope(data, codec, DEFAULT_LIMITS)
    except InferenceError:
        assert is_invalid(codec, row), f"{data!r}: {row!r} is a valid row of an invalid request"
        return
    typed_id = None if envelope.id is msgspec.UNSET else envelope.id
    assert (envelope.model_id, typed_id, bytes(envelope.input_data)) == (model_id, id_, row), f"{data!r}"
    assert envelope.outputs is msgspec.UNSET, f"{data!r}"


def is_invalid(codec: Codec, row: bytes) -> bool:
    try:
        codec.decoder(Any)(row)
    except DECODE_ERRORS:
        return True
    return False


def fuzz_envelope_kernel(seconds: float, seed: int, rounds: int = 10**9) -> str:
    """Runs for a number of rounds or seconds; returns a summary."""
    rng, guarded = random.Random(seed), Guarded()
    done = requests = read = 0
    end = time.monotonic() + seconds
    while done < rounds and time.monotonic() < end:
        counts = compare_once(rng, guarded)
        requests, read, done = requests + counts[0], read + counts[1], done + 1
    return f"envelope kernel: {requests:,} requests, {read:,} of them read, no difference from the typed decoder"
