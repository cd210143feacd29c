"""Random and damaged requests through the envelope kernel and the typed decoder, its equivalent in Python.

The requests and the kernel's output end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from inferd.schemas.codec import decode_envelope
from inferd.schemas.codecs import DECODE_ERRORS, JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import OutputNames
from inferd.schemas.requests.row_decoders import layout_of
from inferd.streams.inference.features import ENCODINGS, ID_BYTES, valid_ids
from inferd.streams.inference.kernels import EnvelopeKernel, PlainRequests, RowKernel, RowSchema, library, split_rows
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
    {"a": "x" * 300}, [[1.0], [2.0]], [{"a": 1}], [[]], [{}, {"b": "]"}], [["AA", 1]] * 20,
)  # fmt: skip
ODD_ROWS: tuple[Any, ...] = (
    [[1.0], {"a": 2}], [{"a": 1}, 3], [[[1]]], {"a": [1]}, 3, None, "AA", {"a": "]"}, ["}", "{"], {'a"]': 1}, ["\\"],
    ["\x1f"], [[], "AA"], [None, [1]],
)  # fmt: skip
OUTPUTS: tuple[list[str], ...] = (["raw"], ["prediction", "raw"], [], ["a]"])
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
    if rng.random() < 0.3:
        body["outputs"] = rng.choice(OUTPUTS)
    if not usual:
        changes = {
            "id": ODD_IDS,
            "input_data": ODD_ROWS,
            "outputs": ([["raw"]], {}, None, 3),
            "model_id": ('"', 3, "\n"),
        }
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
        place: (plain, id_, data)
        for plain in found
        for place, id_, data in zip(plain.indexes.tolist(), plain.ids, plain.data, strict=True)
    }
    assert sorted([*read, *left]) == list(range(len(values)))
    for place, (data, must) in enumerate(made):
        assert place in read or not must, f"not read: {data!r}"
        if place in read:
            check(codec, data, *read[place])
    for plain in found:
        check_lists(codec, plain, guarded)
    return len(values), len(read)


def check_rows(codec: Codec, plain: PlainRequests) -> None:
    """Rows that were read with their envelopes are those that the row kernel reads."""
    if plain.read is not None:
        matrix, fits = plain.read.rows()
        expected, which = row_kernel().read(ENCODINGS[codec], plain.data)
        assert fits.tolist() == which.tolist(), f"{list(plain.data)}"
        assert matrix.tobytes() == expected.tobytes(), f"{list(plain.data)}"


def check_lists(codec: Codec, plain: PlainRequests, guarded: Guarded) -> None:
    """The rows of lists are those that the decoder finds in them; of requests without lists, there are none."""
    if plain.counts is None:
        with suppress(ValueError):
            split_rows(library(), ENCODINGS[codec], plain.data, len(plain.data))
            raise AssertionError(f"rows in {list(plain.data)}")
        return
    content = guarded(np.frombuffer(plain.data.content, np.uint8))
    rows = guarded(np.zeros((int(plain.counts.sum()), 2), np.int64))
    places = [guarded(each) for each in (plain.data.starts, plain.data.ends)]
    found = library().split_rows(
        list(ENCODINGS.values()).index(ENCODINGS[codec]), content.ctypes.data, *(each.ctypes.data for each in places),
        len(plain.data), rows.ctypes.data, len(rows),
    )  # fmt: skip
    guarded.release()
    assert found == len(rows)
    given = iter(split_rows(library(), ENCODINGS[codec], plain.data, len(rows)))
    for data, count in zip(plain.data, plain.counts.tolist(), strict=True):
        listed = list(islice(given, count))
        with suppress(*DECODE_ERRORS):
            expected = map(bytes, codec.decoder(list[msgspec.Raw])(data))
            assert listed == [row.strip() if codec is JSON else row for row in expected], f"{data!r}"


def check(codec: Codec, data: bytes, plain: PlainRequests, id_: str | None, given: bytes) -> None:
    """What the kernel says of a request is what the typed decoder says, unless rows or outputs are invalid."""
    assert len(data) <= BYTES_MAX
    assert id_ is None or (valid_ids([id_], ID_CHARS_MAX)), f"{data!r}: id {id_!r}"
    try:
        envelope = decode_envelope(data, codec, DEFAULT_LIMITS)
    except InferenceError:
        invalid = is_invalid(codec, given, Any) or (plain.outputs and is_invalid(codec, plain.outputs, OutputNames))
        assert invalid, f"{data!r}: valid rows and outputs of an invalid request"
        return
    typed_id = None if envelope.id is msgspec.UNSET else envelope.id
    assert (envelope.model_id, typed_id, bytes(envelope.input_data)) == (plain.model_id, id_, given), f"{data!r}"
    outputs = msgspec.UNSET if plain.outputs is None else codec.decoder(OutputNames)(plain.outputs)
    assert envelope.outputs == outputs, f"{data!r}"
    layout = layout_of(given, codec)
    assert layout.endswith("s") == (plain.counts is not None), f"{data!r}: {layout}"


def is_invalid(codec: Codec, part: bytes, type_: Any) -> bool:
    try:
        codec.decoder(type_)(part)
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
