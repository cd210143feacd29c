"""Random and damaged records of routes through the record kernel and the typed decoder, its equivalent in Python.

The records and the kernel's output end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.models import Feature
from inferd.schemas.routes import Path
from inferd.streams.inference import FeatureSchema
from inferd.streams.inference.kernels import RecordKernel
from inferd.streams.routes.formats import Document
from inferd.streams.routes.formats.typed_tree import TreeReader
from tests.fuzz.mutators import SHAPES, mutate
from tests.fuzz.row_kernel import PARTS, SCHEMAS, WRITERS, number_text, odd_value, schemas, usual_value
from tests.fuzz.tree_kernel import Guarded

RECORDS = 48
NEW_FIELD = "score"
NODES: tuple[tuple[str, ...], ...] = (
    (),
    ("order",),
    ("order", "é"),
    ("a",),
    ("order", "address", "country"),
    ("order",),
)
"""The maps in which features are, one after the other."""
NAMES = ("", "id", "note", "order", "a", "f0", "f1", "é", "address", "a longer name than eight", "x" * 40)
PIECES = (
    *PARTS,
    b'"order":',
    b'"score":1',
    b"{}",
    b"[]",
    b"[[",
    b'"\\ud800"',
    b'\\"',
    b'"a":{"f3":1}',
    b"\xdb\0\0\0\1a",
)


@dataclass(frozen=True)
class Source:
    """What a reader uses of a record."""

    value: bytes
    key: None = None
    headers: tuple[()] = ()


def paths_of(features: list[Feature]) -> list[tuple[str, ...]]:
    return [(*NODES[place % len(NODES)], f"f{place}") for place in range(len(features))]


def kernel_of(place: int) -> RecordKernel:
    kernel = schemas()[place].record_kernel(paths_of(SCHEMAS[place][0]), NEW_FIELD)
    assert kernel is not None
    return kernel


def other_value(rng: random.Random, depth: int = 0) -> Any:
    """A value of a field that no path leads to."""
    kind = rng.randrange(7 if depth < 4 else 5)
    if kind == 5:
        return {rng.choice(NAMES): other_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 6:
        return [other_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice((None, True, 1, -7, 0.5, 1e300, "", "text", "a text with a longer content", "été", 12_345))


def record_of(rng: random.Random, features: list[Feature], *, usual: bool) -> dict[str, Any]:
    """A record with the features at their paths, and other fields around them in any order."""
    tree: dict[str, Any] = {}
    for feature, path in zip(features, paths_of(features), strict=True):
        if not usual and rng.random() < 0.1:
            continue
        value = usual_value(rng, feature) if usual or rng.random() < 0.8 else odd_value(rng)
        below = tree
        for name in path[:-1]:
            below = below.setdefault(name, {})
        below[path[-1]] = value
    return mixed(rng, tree, usual=usual)


def mixed(rng: random.Random, tree: dict[str, Any], *, usual: bool) -> dict[str, Any]:
    pairs = [(name, mixed(rng, each, usual=usual) if isinstance(each, dict) else each) for name, each in tree.items()]
    if not usual and rng.random() < 0.05:
        pairs.append((NEW_FIELD, None))
    for _ in range(rng.randrange(4)):
        pairs.insert(rng.randrange(len(pairs) + 1), (f"other {rng.randrange(9)}", other_value(rng)))
    if rng.random() < 0.3:
        rng.shuffle(pairs)
    if not usual and rng.random() < 0.1:
        pairs = [(name, None if isinstance(each, dict) else each) for name, each in pairs]
    return dict(pairs)


def encoded(rng: random.Random, codec: Codec, features: list[Feature]) -> tuple[bytes, bool]:
    """A record, and whether the kernel has to read it."""
    usual = rng.random() < 0.4
    record = record_of(rng, features, usual=usual)
    writer = WRITERS[codec][1 if usual and codec is JSON else rng.randrange(len(WRITERS[codec]))]
    try:
        data = writer(record)
    except (TypeError, OverflowError):
        return b"\x00", False
    if usual:
        return data, True
    if codec is JSON and rng.random() < 0.5:
        data = re.sub(rb"-?\d+\.\d+", lambda _: number_text(rng).encode(), data)
    if rng.random() < 0.6:
        data = mutate(rng, data, SHAPES[codec], lambda: rng.choice(PIECES))
    return data, False


def typed(features: FeatureSchema, reader: TreeReader, data: bytes) -> bytes | None:
    """The row according to the typed decoder; None if the record has none."""
    (document,) = reader.read([Source(data)])
    if not isinstance(document, Document):
        return None
    try:
        inputs = features.of_values([list(document.values)])
    except InferenceError:
        return None
    assert isinstance(inputs, np.ndarray)
    return inputs.tobytes()


def compare_once(rng: random.Random, guarded: Guarded, place: int, kernel: RecordKernel) -> tuple[int, int]:
    """Compares the records of one schema; returns how many were compared, and how many the kernel read."""
    features, columns = schemas()[place], SCHEMAS[place][0]
    codec = rng.choice((JSON, MSGPACK))
    reader = TreeReader(codec, [Path(".".join(path), path) for path in paths_of(columns)], NEW_FIELD)
    made = [encoded(rng, codec, columns) for _ in range(rng.choice((1, RECORDS)))]
    content = guarded(np.frombuffer(b"".join(data for data, _ in made) or b"\0", np.uint8))
    matrix = guarded(np.full((len(made), features.n_features), -1.0))
    fits = guarded(np.zeros(len(made), np.bool_))
    ends = guarded(np.cumsum([len(data) for data, _ in made], dtype=np.int64))
    starts = guarded(ends - np.array([len(data) for data, _ in made]))
    read = kernel.read_into(matrix, fits, codec.name, content.ctypes.data, starts, ends)  # type: ignore[arg-type]
    assert read == fits.sum()
    rejected = features.apply(matrix[:read]) if read else None
    bad = np.zeros(read, np.bool_) if rejected is None else rejected
    found = iter(zip(matrix[:read], bad, strict=True))
    for (data, must), fit in zip(made, fits.tolist(), strict=True):
        assert fit or not must, f"not read: {data!r}"
        if fit:
            row, invalid = next(found)
            expected = typed(features, reader, data)
            assert expected == (None if invalid else row.tobytes()), f"{data!r}: {row}, rejected: {invalid}"
    guarded.release()
    return len(made), read


def fuzz_record_kernel(seconds: float, seed: int, rounds: int = 10**9) -> str:
    """Runs for a number of rounds or seconds; returns a summary."""
    rng, guarded, kernels = random.Random(seed), Guarded(), [kernel_of(place) for place in range(len(SCHEMAS))]
    done = records = read = 0
    end = time.monotonic() + seconds
    while done < rounds and time.monotonic() < end:
        place = done % len(SCHEMAS)
        counts = compare_once(rng, guarded, place, kernels[place])
        records, read, done = records + counts[0], read + counts[1], done + 1
    return f"record kernel: {records:,} records, {read:,} of them read, no difference from the typed decoder"
