"""What a split costs: requests to an alias of two versions, and the same requests to an alias of one.

`python -m bench.splits`: the contenders take turns in one process, on one thread, over the same requests, each with a
key (or id) of its own. µs of CPU a request from bytes to bytes, the best of the turns for each micro-batch, and ratios.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgpack
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.kernels import train
from bench.layouts import FEATURES
from bench.machine import CpuLedger
from bench.rows import SEED, Layout, Message, inferd_catalog
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, SplitShare
from inferd.streams.inference import Scorer

SIZES = (64, 1_024, 4_096)
REQUESTS = 8_192
ALIASES = {
    "one version": Alias(version=1),
    "90 : 10": Alias(split=[SplitShare(1, 90.0), SplitShare(2, 10.0)]),
    "50 : 50": Alias(split=[SplitShare(1, 50.0), SplitShare(2, 50.0)]),
}
Score = Callable[[Sequence[Message]], list[bytes]]


@dataclass(frozen=True, slots=True)
class Case:
    """How producers write their requests."""

    name: str
    by_key: bool
    """Whether requests have keys; the id decides otherwise."""


CASES = (Case("requests with keys", by_key=True), Case("requests without keys: the id decides", by_key=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.splits", description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    scores = {name: score_of(alias) for name, alias in ALIASES.items()}
    for case in CASES:
        console.print(table_of(case, scores, options.turns))
    console.print(f"others' load: {ledger.verdict()}")
    return 0


def score_of(alias: Alias) -> Score:
    """The scorer of a worker, whose alias `bench@canary` is `alias`."""
    catalog = inferd_catalog(train(100, 31), Layout("", "msgpack", by_name=False), (1, 2))
    catalog.put_alias("bench", "canary", alias)
    scorer = Scorer(catalog, DEFAULT_LIMITS)

    def score(messages: Sequence[Message]) -> list[bytes]:
        batch = scorer.prepare([(0, messages)], 0)
        for group in batch.groups:
            group.predict()
        return list(batch.finish().values)

    return score


def table_of(case: Case, scores: dict[str, Score], turns: int) -> Table:
    messages = messages_of(case)
    table = Table(case.name, *scores, *(f"{name} / one version" for name in list(scores)[1:]))
    for size in SIZES:
        taken = turn_by_turn(scores, messages, size, turns)
        one, *others = taken.values()
        table.add_row(
            f"{size:,}", *(f"{each:.2f}" for each in taken.values()), *(f"{each / one:.2f}" for each in others)
        )
    return table


def messages_of(case: Case) -> list[Message]:
    rows = np.random.default_rng(SEED).normal(size=(REQUESTS, FEATURES)).tolist()
    return [
        replace(message(number, row), key=b"customer-%d" % number if case.by_key else None)
        for number, row in enumerate(rows)
    ]


def message(number: int, row: list[float]) -> Message:
    value = {"id": f"r{number:08d}", "model_id": "bench@canary", "input_data": row}
    return Message(msgpack.packb(value), number, [])


def turn_by_turn(scores: dict[str, Score], messages: Sequence[Message], size: int, turns: int) -> dict[str, float]:
    """µs a request of each: the best of the turns for each micro-batch, which all contenders score in turn."""
    batches = [messages[first : first + size] for first in range(0, REQUESTS, size)]
    best = {name: [float("inf")] * len(batches) for name in scores}
    for turn in range(turns):
        for number, batch in enumerate(batches):
            for place in range(len(scores)):
                name = list(scores)[(turn + number + place) % len(scores)]
                begin = time.thread_time()
                scores[name](batch)
                best[name][number] = min(best[name][number], time.thread_time() - begin)
    return {name: sum(taken) * 1e6 / REQUESTS for name, taken in best.items()}


if __name__ == "__main__":
    sys.exit(main())
