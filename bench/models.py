"""Each model format in a worker, compared with a librdkafka loop that calls the library's own predict.

`python -m bench.models`: for each kind of model both process the same backlog of single-row requests, in turn. The loop
takes up to 512 at once. All predictions are compared with the library's, bit for bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
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
from bench.peers.catalog import INFERD, peers_named
from bench.plan import BacklogPlan
from bench.requests import make_text_requests
from bench.throughput import BacklogMeasure, measure_backlogs

LOOP = "librdkafka"
TARGET = 1.0
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
    console, ledger = Console(width=None if sys.stdout.isatty() else 140), CpuLedger()
    plan = BacklogPlan(repeats=options.repeats, count=options.count, warm=options.count // 5)
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
    return measure_backlogs(lab, peers_named(f"{LOOP},{INFERD}"), plan, report)


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

    parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "seed": SEED}
    xgboost.train(parameters, xgboost.DMatrix(rows, labels), TREES).save_model(path)


def _catboost(rows: Rows, labels: Rows, path: str) -> None:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(
        iterations=TREES, depth=DEPTH, random_seed=SEED, allow_writing_files=False, logging_level="Silent"
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


def _show(console: Console, figures: dict[str, list[BacklogMeasure]]) -> None:
    table = Table(title="A backlog of single-row requests: median (range) over repeats", title_justify="left")
    rate, cost = "messages/s", "CPU µs per message"
    for heading in ("", f"loop, {rate}", f"inferd, {rate}", "inferd / loop", f"loop, {cost}", f"inferd, {cost}", "CPU"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, measures in figures.items():
        loop, ours = ([each for each in measures if each.peer == peer] for peer in (LOOP, INFERD))
        rates = [[each.messages_per_s for each in peer] for peer in (loop, ours)]
        costs = [[each.cpu_us_per_message for each in peer] for peer in (loop, ours)]
        table.add_row(
            name,
            *(_shown(spread(rate), ",.0f") for rate in rates),
            _shown(paired_ratios(rates[1], rates[0]), ".2f"),
            *(_shown(spread(cost), ".1f") for cost in costs),
            _shown(paired_ratios(costs[1], costs[0]), ".2f"),
        )
    console.print(table)
    console.print(f"target of inferd / loop: {TARGET:g} or more")


def _shown(found: Spread, spec: str) -> str:
    return f"{found.median:{spec}} ({found.low:{spec}}-{found.high:{spec}})"


if __name__ == "__main__":
    sys.exit(main())
