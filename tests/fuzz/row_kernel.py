"""Random and damaged rows through the row kernel and the typed decoder, its equivalent in Python.

The rows and the kernel's output end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import json
import math
import random
import re
import struct
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import msgpack
import msgspec
import numpy as np

from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Category, Feature, Manifest, Preprocess
from inferd.schemas.requests import decode_input_data
from inferd.streams.inference.features import FeatureSchema
from inferd.streams.inference.kernels import RowKernel
from tests.fuzz.mutators import SHAPES, mutate
from tests.fuzz.tree_kernel import Guarded

ROWS = 48
AIRLINES: list[Category] = ["AA", "DL", "Delta Air Lines", "été", "", 'q"uote', "tab\t"]
NUMBERS: list[Category] = [1, 2.5, -7, 2**60, 3]
SCHEMAS: tuple[tuple[list[Feature], dict[str, Any]], ...] = (
    ([Feature(f"f{place}") for place in range(9)], {}),
    ([Feature(name) for name in ("a", "ab", "abc", "dtype", "shape", "data", "é", 'x"y', "", "a name of 18 char")], {}),
    (
        [
            Feature("distance", "float32", min=-50.0, max=5_000.0),
            Feature("carrier", "category", categories=AIRLINES),
            Feature("number", "category", categories=[*NUMBERS, False, "1"]),
            Feature("flag", "bool", required=False),
            Feature("stops", "int64"),
            Feature("delay", required=True),
        ],
        {"defaults": {"stops": 2, "carrier": "DL"}},
    ),
    (
        [
            Feature("carrier", "category", categories=AIRLINES, required=False),
            Feature("number", "category", categories=[True, *NUMBERS[1:]]),
            Feature("x"),
        ],
        {"unknown_category": "missing", "order": ["x", "number"], "out_of_range": "clip"},
    ),
)
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -0.0, 0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, math.nan, math.inf,
    2**53 + 1, 2**63, -(2**63), 2**64 - 1, "AA", "", "é", 'q"uote', "x" * 400, [1.0], {"a": 1}, b"AA", 0.1, 1e22, 1e23,
)  # fmt: skip
PARTS = (
    b'"f1":',
    b"null",
    b"-0",
    b"1e5",
    b"1E-400",
    b"0.1",
    b"\\u0061",
    b"NaN",
    b" ",
    b"\t",
    b"\x00",
    b"\xff",
    b"9" * 20,
)


@cache
def schemas() -> list[FeatureSchema]:
    return [made(place) for place in range(len(SCHEMAS))]


def made(place: int) -> FeatureSchema:
    features, preprocess = SCHEMAS[place]
    return FeatureSchema(Manifest("m", 1, "lightgbm", "0" * 64, 1, features, preprocess=Preprocess(**preprocess)))


def usual_value(rng: random.Random, feature: Feature) -> Any:
    """JSON as producers send it, without escapes."""
    if feature.categories is not None:
        return rng.choice([None if feature.required is None else feature.categories[0], *feature.categories[:3]])
    if feature.dtype == "int64":
        return rng.randrange(-1_000, 1_000)
    if feature.dtype == "bool":
        return rng.choice((True, False))
    return rng.choice((rng.gauss(0, 1), rng.uniform(-50, 5_000), rng.randrange(100), round(rng.uniform(0, 9), 3)))


def odd_value(rng: random.Random) -> Any:
    kind = rng.randrange(5)
    if kind == 0:
        return struct.unpack("<d", rng.randbytes(8))[0]
    if kind == 1:
        return rng.randrange(-(2**63), 2**64)
    if kind == 2:
        return rng.gauss(0, 1)
    return rng.choice((*ODD, *AIRLINES, *NUMBERS))


def number_text(rng: random.Random) -> str:
    """A JSON number that is hard to round: many digits, any exponent, or exactly between two floats."""
    digits = rng.choice(
        (rng.randrange(10**19), rng.randrange(2**53, 2**54) | 1, rng.randrange(10 ** rng.randrange(1, 19)))
    )
    point = rng.randrange(len(str(digits)))
    text = str(digits) if not point else f"{str(digits)[:point]}.{str(digits)[point:]}"
    exponent = rng.choice(("", f"e{rng.randrange(-345, 312)}", f"E+{rng.randrange(30)}", f"e-{rng.randrange(30):02}"))
    return rng.choice(("", "-")) + text + exponent


def jackson(value: Any) -> bytes:
    """Exponents as Java writes them: 1.0E-5."""
    return re.sub(rb"(\d)e(-?)\+?0*", rb"\1E\2", json.dumps(value, separators=(",", ":")).encode())


def javascript(value: Any) -> bytes:
    """Whole numbers without a fraction, as JSON.stringify writes them."""
    return re.sub(rb"(\d)\.0([,}\]])", rb"\1\2", json.dumps(value, separators=(",", ":")).encode())


WRITERS: dict[Codec, tuple[Callable[[Any], bytes], ...]] = {
    JSON: (
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, indent=2, ensure_ascii=False).encode(),
        msgspec.json.encode,
        jackson,
        javascript,
    ),
    MSGPACK: (msgpack.packb, msgspec.msgpack.encode, lambda value: msgpack.packb(value, use_single_float=True)),
}


def row_of(rng: random.Random, features: list[Feature], order: list[str], *, usual: bool) -> Any:
    pairs = [(f.name, usual_value(rng, f) if usual or rng.random() < 0.8 else odd_value(rng)) for f in features]
    if rng.random() < 0.3:
        named = dict(pairs)
        return [named[name] for name in order]
    if rng.random() < 0.3:
        rng.shuffle(pairs)
    if not usual and rng.random() < 0.2:
        pairs = rng.sample(pairs, rng.randrange(len(pairs) + 1))
    return dict(pairs)


def encoded(rng: random.Random, codec: Codec, features: list[Feature], order: list[str]) -> tuple[bytes, bool]:
    """A row, and whether the kernel has to read it."""
    usual = rng.random() < 0.4
    row = row_of(rng, features, order, usual=usual)
    try:
        data = rng.choice(WRITERS[codec])(row)
    except (TypeError, OverflowError):
        return b"\x00", False
    if usual:
        return data, not any('"' in feature.name for feature in features) or not isinstance(row, dict)
    if codec is JSON and rng.random() < 0.5:
        data = re.sub(rb"-?\d+\.\d+", lambda _: number_text(rng).encode(), data)
    if rng.random() < 0.6:
        data = mutate(rng, data, SHAPES[codec], lambda: rng.choice(PARTS))
    return data, False


def typed(features: FeatureSchema, codec: Codec, data: bytes) -> bytes | None:
    """The row according to the typed decoder; None if it is rejected, or is not one row."""
    try:
        rows = decode_input_data(data, codec, DEFAULT_LIMITS)
        if not getattr(rows, "single", False):
            return None
        inputs = features.inputs(rows)
    except InferenceError:
        return None
    assert isinstance(inputs, np.ndarray)
    return inputs.tobytes()


def compare_once(rng: random.Random, guarded: Guarded, place: int, kernel: RowKernel | None = None) -> tuple[int, int]:
    """Compares the rows of one schema; returns how many were compared, and how many the kernel read."""
    features, (columns, preprocess) = schemas()[place], SCHEMAS[place]
    order = preprocess.get("order") or [feature.name for feature in columns]
    codec = rng.choice((JSON, MSGPACK))
    made = [encoded(rng, codec, columns, order) for _ in range(rng.choice((1, ROWS)))]
    rows = [data for data, _ in made]
    content = guarded(np.frombuffer(b"".join(rows) or b"\0", np.uint8))
    matrix = guarded(np.full((len(rows), features.n_features), -1.0))
    fits, ends = guarded(np.zeros(len(rows), np.bool_)), guarded(np.cumsum([len(row) for row in rows], dtype=np.int64))
    kernel = kernel or features.kernel
    assert kernel is not None
    starts = guarded(ends - np.array([len(row) for row in rows]))
    read = kernel.read_into(matrix, fits, codec.name, content.ctypes.data, starts, ends)  # type: ignore[arg-type]
    assert read == fits.sum()
    rejected = features.apply(matrix[:read])
    check(features, codec, made, matrix[:read], fits, np.zeros(read, np.bool_) if rejected is None else rejected)
    guarded.release()
    return len(rows), read


def check(
    features: FeatureSchema, codec: Codec, made: list[tuple[bytes, bool]], matrix: Any, fits: Any, bad: Any
) -> None:
    found = iter(zip(matrix, bad, strict=True))
    for (data, must), fit in zip(made, fits.tolist(), strict=True):
        assert fit or not must, f"not read: {data!r}"
        if fit:
            row, rejected = next(found)
            expected = typed(features, codec, data)
            assert expected == (None if rejected else row.tobytes()), f"{data!r}: {row}, rejected: {rejected}"


def fuzz_row_kernel(seconds: float, seed: int, rounds: int = 10**9) -> str:
    """Runs for a number of rounds or seconds; returns a summary."""
    rng, guarded = random.Random(seed), Guarded()
    done = rows = read = 0
    end = time.monotonic() + seconds
    while done < rounds and time.monotonic() < end:
        counts = compare_once(rng, guarded, done % len(SCHEMAS))
        rows, read, done = rows + counts[0], read + counts[1], done + 1
    return f"row kernel: {rows:,} rows, {read:,} of them read, no difference from the typed decoder"
