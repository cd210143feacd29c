"""Each model format in a worker, compared with a librdkafka loop that calls the library's own predict, and MLServer.

`python -m bench.models`: for each kind of model all process the same rows as single-row requests, in turn. The loop
takes up to 512 at once. The first table has requests in MessagePack. The others have JSON: inferd's own for the worker,
and the Open Inference Protocol's for the loop and for MLServer, which gets 2,000 requests. All predictions are compared
with the library's, bit for bit. Takes 15 minutes, on a busy machine three times as long; --count and --formats shorten
it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.lab import Lab, open_lab
from bench.layouts import FEATURES
from bench.libraries import LIBRARIES
from bench.machine import CpuLedger
from bench.measures import Spread, paired_ratios, spread
from bench.model import LEAVES, SEED, TRAINING_ROWS, TREES, BenchModel
from bench.peers import mlserver
from bench.peers.catalog import FORMAT_PEERS, INFERD, JSON_INFERD, JSON_LOOP, LOOP, MLSERVER
from bench.plan import BacklogPlan
from bench.requests import make_text_requests
from bench.throughput import BacklogMeasure, measure_backlogs

TARGET = 1.0
MLSERVER_COUNT = 2_000
"""It scores all that waits before it sends, and drops each result that cannot be sent within 40 s."""
TITLES = {LOOP: "loop", JSON_LOOP: "loop", MLSERVER: "MLServer"}
DEPTH = 5
Rows = np.ndarray[Any, np.dtype[np.float64]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; exit code 0, or 1 if a measurement is invalid."""
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__)
    parser.add_argument("--formats", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=100_000, help="requests of a backlog; a fifth of them is warm-up")
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running Kafka; default: an embedded one")
    options = parser.parse_args(arguments)
    if not mlserver.PYTHON.exists():
        print("without MLServer, which `make bench-models` installs", file=sys.stderr)
    console, ledger = Console(width=None if sys.stdout.isatty() else 140), CpuLedger()
    plan = BacklogPlan(
        options.repeats, options.count, options.count // 5, slow_count=MLSERVER_COUNT, slow_warm=MLSERVER_COUNT // 4
    )
    try:
        with open_lab(options.broker) as lab:
            figures = {name: _measure(lab, name, plan, console) for name in options.formats}
    except BenchError as error:
        console.print(f"bench: {error.message}", markup=False)
        return 1
    _show(console, figures)
    console.print(f"load of other processes: {ledger.verdict()}")
    return 0


def _measure(lab: Lab, name: str, plan: BacklogPlan, console: Console) -> list[BacklogMeasure]:
    def report(line: str) -> None:
        console.print(f"{name}: {line}", markup=False, soft_wrap=True)

    model = lab.model if name == lab.model.library else train(name, lab.work_dir)
    lab = dataclasses.replace(lab, model=model, namespace=f"{lab.namespace}-{name}")
    has_mlserver = mlserver.PYTHON.exists() and name in mlserver.RUNTIMES
    peers = [peer for peer in FORMAT_PEERS if peer.name != MLSERVER or has_mlserver]
    return measure_backlogs(lab, peers, plan, report)


def train(name: str, directory: Path) -> BenchModel:
    """A model of 100 trees, or of text, in the file format of its library."""
    random = np.random.default_rng(SEED)
    rows = random.normal(size=(TRAINING_ROWS, FEATURES))
    labels = (rows @ random.normal(size=FEATURES) + random.normal(size=TRAINING_ROWS) > 0).astype(int)
    path, save = _TRAINERS[name]
    save(rows, labels, str(directory / path))
    return BenchModel.of(directory / path, name)


def _xgboost(rows: Rows, labels: Rows, path: str) -> None:
    import xgboost

    parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "seed": SEED, "nthread": 1}
    xgboost.train(parameters, xgboost.DMatrix(rows, labels), TREES).save_model(path)


def _catboost(rows: Rows, labels: Rows, path: str) -> None:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(
        iterations=TREES,
        depth=DEPTH,
        random_seed=SEED,
        allow_writing_files=False,
        logging_level="Silent",
        thread_count=1,
    )
    model.fit(rows, labels).save_model(path)


def _onnx(rows: Rows, labels: Rows, path: str) -> None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(TREES, max_leaf_nodes=LEAVES, random_state=SEED % 1_000).fit(rows, labels)
    types = [("X", FloatTensorType([None, FEATURES]))]
    converted = convert_sklearn(forest, initial_types=types, options={"zipmap": False}, target_opset=17)
    Path(path).write_bytes(converted.SerializeToString())


def _sklearn(rows: Rows, labels: Rows, path: str) -> None:
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=TREES, max_leaf_nodes=LEAVES, early_stopping=False)
    skops.io.dump(model.fit(rows, labels), path)


def _sklearn_text(_rows: Rows, _labels: Rows, path: str) -> None:
    import skops.io
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = make_text_requests(TRAINING_ROWS, "training").rows[:, 0]
    labels = [("bug", "praise", "question")[len(text) % 3] for text in texts]
    skops.io.dump(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels), path)


_TRAINERS: dict[str, tuple[str, Callable[[Any, Any, str], None]]] = {
    "xgboost": ("model.ubj", _xgboost),
    "catboost": ("model.cbm", _catboost),
    "onnx": ("model.onnx", _onnx),
    "sklearn": ("model.skops", _sklearn),
    "sklearn-text": ("text.skops", _sklearn_text),
}
"""The name of the file, and how it is trained and saved."""


def _show(console: Console, figures: Mapping[str, Sequence[BacklogMeasure]]) -> None:
    console.print(_comparison(figures, "msgpack", INFERD, LOOP))
    console.print(f"target of inferd / loop: {TARGET:g} or more")
    console.print(_comparison(figures, "JSON", JSON_INFERD, JSON_LOOP))
    console.print(_comparison(figures, "JSON, beside MLServer", JSON_INFERD, MLSERVER))


def _comparison(figures: Mapping[str, Sequence[BacklogMeasure]], title: str, ours: str, theirs: str) -> Table:
    """inferd beside another peer, a row for each kind of model."""
    table = Table(title=f"Single-row requests, {title}: median (range) over repeats", title_justify="left")
    other, rate, cost = TITLES[theirs], "messages/s", "CPU µs per message"
    ratio = f"inferd / {other}"
    headings = (f"{other}, {rate}", f"inferd, {rate}", ratio, f"{other}, {cost}", f"inferd, {cost}", f"CPU, {ratio}")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, measures in figures.items():
        other_measures = {each.repeat: each for each in measures if each.peer == theirs}
        our_measures = [each for each in measures if each.peer == ours and each.repeat in other_measures]
        table.add_row(name, *(_row([*other_measures.values()], our_measures) if other_measures else ["none"]))
    return table


def _row(theirs: Sequence[BacklogMeasure], ours: Sequence[BacklogMeasure]) -> list[str]:
    rates = [[each.messages_per_s for each in peer] for peer in (theirs, ours)]
    costs = [[each.cpu_us_per_message for each in peer] for peer in (theirs, ours)]
    return [
        *(_shown(spread(rate), ",.0f") for rate in rates),
        _shown(paired_ratios(rates[1], rates[0]), ".2f"),
        *(_shown(spread(cost), ".1f") for cost in costs),
        _shown(paired_ratios(costs[1], costs[0]), ".2f"),
    ]


def _shown(found: Spread, spec: str) -> str:
    return f"{found.median:{spec}} ({found.low:{spec}}-{found.high:{spec}})"


if __name__ == "__main__":
    sys.exit(main())
