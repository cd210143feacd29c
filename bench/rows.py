"""Requests in memory, from bytes to the bytes of results: inferd with and without kernels, and a loop written by hand.

`python -m bench.rows`: contenders take turns in one process, on one thread, over requests that are all different;
medians of the turns, µs of CPU a message. The loop decodes with the package `json` or `msgpack`, or with msgspec, makes
one matrix, calls `Booster.predict` with it, and encodes with the same package.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import lightgbm
import msgpack
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.kernels import train
from bench.layouts import FEATURES, NAMES
from bench.machine import CpuLedger
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, SplitShare
from inferd.streams.inference import (
    ModelCatalog,
    Scorer,
    Version,
    kernels_fault,
    load_model,
    manifest_of,
    use_kernels,
)

SIZES = (1, 64, 1_024)
ROWS = 2_048
SEED = 20_240_229
CARRIERS = [f"carrier {number}" for number in range(20)]
CATEGORY = FEATURES - 1
JSON_HEADER = ("content-type", b"application/json")
Value = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of a fetched record that scoring reads."""

    value: bytes
    offset: int
    headers: list[tuple[str, bytes]]
    key: bytes | None = None
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """How a producer writes its requests."""

    name: str
    encoding: str = "json"
    by_name: bool = True
    category: bool = False
    headers: bool = False
    split: bool = False
    """Whether requests go to an alias that splits them over two versions; the loop by hand has one."""

    def message(self, number: int, row: list[Any]) -> Message:
        body = {
            "id": f"r{number:08d}",
            "model_id": "bench@canary" if self.split else "bench",
            "input_data": dict(zip(NAMES, row, strict=True)) if self.by_name else row,
        }
        headers = [JSON_HEADER] if self.encoding == "json" else []
        if self.headers:
            trace = b"00-%032x-%016x-00" % (number + 1, number + 1)
            headers += [("correlation-id", b"c-%08d" % number), ("traceparent", trace), ("deadline", b"1999999999999")]
        value = json.dumps(body).encode() if self.encoding == "json" else msgpack.packb(body)
        return Message(value, number, headers)


LAYOUTS = (
    Layout("rows by name, JSON"),
    Layout("the same, one feature a category", category=True),
    Layout("rows by name, JSON, four headers", headers=True),
    Layout("rows by name, msgpack", "msgpack"),
    Layout("list rows, msgpack", "msgpack", by_name=False),
    Layout("the same, behind a split", "msgpack", by_name=False, split=True),
)
Score = Callable[[Sequence[Message]], object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 there are no kernels."""
    parser = argparse.ArgumentParser(prog="python -m bench.rows", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    if (fault := kernels_fault()) is not None:
        console.print(f"bench: there are no kernels: {fault}", markup=False)
        return 1
    text = train(100, 31)
    for layout in LAYOUTS:
        console.print(table_of(layout, text, options.turns))
    console.print(f"others' load: {ledger.verdict()}")
    return 0


def table_of(layout: Layout, text: bytes, turns: int) -> Table:
    contenders = contenders_of(layout, text)
    rows = np.random.default_rng(SEED).normal(size=(ROWS, FEATURES)).tolist()
    if layout.category:
        rows = [[*row[:CATEGORY], CARRIERS[number % len(CARRIERS)]] for number, row in enumerate(rows)]
    messages = [layout.message(number, row) for number, row in enumerate(rows)]
    check(contenders, messages[:256])
    table = Table(layout.name, *contenders, *(f"{name} / inferd" for name in contenders if name != "inferd"))
    for size in SIZES:
        taken = turn_by_turn(contenders, messages, size, turns)
        ratios = [f"{each / taken['inferd']:.1f}" for name, each in taken.items() if name != "inferd"]
        table.add_row(f"{size:,}", *(f"{each:.2f}" for each in taken.values()), *ratios)
    return table


def contenders_of(layout: Layout, text: bytes) -> dict[str, Score]:
    booster = lightgbm.Booster(model_str=text.decode())
    package, fast = (json, msgspec.json) if layout.encoding == "json" else (msgpack, msgspec.msgpack)
    load, dump = (package.loads, package.dumps) if layout.encoding == "json" else (msgpack.unpackb, msgpack.packb)
    return {
        f"by hand, {package.__name__}": by_hand(booster, layout, load, dump),
        "by hand, msgspec": by_hand(booster, layout, fast.decode, fast.encode),
        "inferd, kernels off": inferd(layout, text, kernels=False),
        "inferd": inferd(layout, text, kernels=True),
    }


def by_hand(
    booster: lightgbm.Booster, layout: Layout, load: Callable[[bytes], Value], dump: Callable[[Value], Any]
) -> Score:
    """What one writes in an afternoon: no checks of names, types or ids."""
    codes = {carrier: float(code) for code, carrier in enumerate(CARRIERS)}

    def score(messages: Sequence[Message]) -> list[Any]:
        requests = [load(message.value) for message in messages]
        rows = [request["input_data"] for request in requests]
        if layout.by_name:
            rows = [[row[name] for name in NAMES] for row in rows]
        if layout.category:
            for row in rows:
                row[CATEGORY] = codes[row[CATEGORY]]
        predictions = np.asarray(booster.predict(np.array(rows), num_threads=1))
        return [
            dump({"id": request["id"], "model_id": "bench", "version": 1, "digest": "0" * 64, "prediction": value})
            for request, value in zip(requests, predictions.tolist(), strict=True)
        ]

    return score


def inferd(layout: Layout, text: bytes, *, kernels: bool) -> Score:
    """What a worker does with the records of a micro-batch, between fetching and publishing."""
    use_kernels(kernels)
    catalog = inferd_catalog(text, layout, (1, 2) if layout.split else (1,))
    catalog.put_alias("bench", "canary", Alias(split=[SplitShare(1, 9.0), SplitShare(2, 1.0)]))
    scorer = Scorer(catalog, DEFAULT_LIMITS)
    use_kernels(True)

    def score(messages: Sequence[Message]) -> list[bytes]:
        batch = scorer.prepare([(0, messages)], 0)
        for group in batch.groups:
            group.predict()
        return list(batch.finish().values)

    return score


def inferd_catalog(text: bytes, layout: Layout, numbers: Sequence[int]) -> ModelCatalog:
    """The model as versions `numbers` of `bench`."""
    features = [{"name": name, "dtype": "float64"} for name in NAMES]
    if layout.category:
        features[CATEGORY] = {"name": NAMES[CATEGORY], "dtype": "category", "categories": CARRIERS}  # type: ignore[dict-item]
    catalog = ModelCatalog()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.txt"
        path.write_bytes(text)
        for number in numbers:
            served = load_model(path, manifest_of(text, "bench", number, {"features": features}))
            catalog.put(Version(served.manifest, "ready", None, served))
    return catalog


def check(contenders: dict[str, Score], messages: Sequence[Message]) -> None:
    """All give the same predictions."""
    found = [predictions_of(score(messages)) for score in contenders.values()]
    assert all(each.tobytes() == found[0].tobytes() for each in found)


def predictions_of(results: Any) -> NDArray[np.float64]:
    def decoded(result: bytes | str) -> Value:
        data = result.encode() if isinstance(result, str) else result
        value: Value = msgspec.json.decode(data) if data[:1] == b"{" else msgspec.msgpack.decode(data)
        return value

    return np.array([decoded(result)["prediction"] for result in results])


def turn_by_turn(contenders: dict[str, Score], messages: Sequence[Message], size: int, turns: int) -> dict[str, float]:
    """Median µs a message of each."""
    batches = [messages[first : first + size] for first in range(0, ROWS, size)][: max(2, 512 // size)]
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns):
        for place in range(len(contenders)):
            name = list(contenders)[(turn + place) % len(contenders)]
            begin = time.thread_time()
            for batch in batches:
                contenders[name](batch)
            taken[name].append((time.thread_time() - begin) * 1e6 / size / len(batches))
    return {name: median(values) for name, values in taken.items()}


if __name__ == "__main__":
    sys.exit(main())
