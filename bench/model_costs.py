"""CPU time of scoring for each model format, without Kafka: inferd compared with the body of the librdkafka loop.

`python -m bench.model_costs`: encoded requests to encoded results, in micro-batches of 512, in turn. CPU time depends
little on the load of other processes. Set `OMP_NUM_THREADS=1`, as the loop of `bench.models` does.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgpack

from bench.cache_gain import NOW_MS, Request
from bench.layouts import MODEL_ID
from bench.libraries import LIBRARIES, TEXT
from bench.measures import paired_ratios, spread
from bench.model import BenchModel, train_model
from bench.models import train
from bench.requests import make_requests, make_text_requests
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference import ModelCatalog, Scorer, Version, load_model, manifest_of

ROUNDS, COUNT, BATCH = 7, 4_096, 512
Score = Callable[[Sequence[bytes]], None]


def main() -> int:
    """Prints a line for each format."""
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as directory:
        for name in LIBRARIES:
            model = train_model(Path(directory)) if name == "lightgbm" else train(name, Path(directory))
            _compare(model)
    return 0


def _compare(model: BenchModel) -> None:
    requests = (make_text_requests if model.library == TEXT else make_requests)(COUNT, "cost-")
    values = [requests.encode(number) for number in range(COUNT)]
    loop, ours = _loop(model), _worker(model)
    pairs = [(_cost_us(loop, values), _cost_us(ours, values)) for _ in range(ROUNDS)]
    theirs, mine = zip(*pairs, strict=True)
    ratio = paired_ratios(theirs, mine)
    print(
        f"{model.library}: loop {spread(theirs).median:.1f}, inferd {spread(mine).median:.1f} µs a message;"
        f" loop / inferd {ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    )


def _cost_us(score: Score, values: Sequence[bytes]) -> float:
    started = time.process_time()
    for first in range(0, len(values), BATCH):
        score(values[first : first + BATCH])
    return (time.process_time() - started) / len(values) * 1e6


def _loop(model: BenchModel) -> Score:
    """What `bench.peers.librdkafka_loop` does with a micro-batch."""
    predict = LIBRARIES[model.library](str(model.path))
    version, digest = model.identity

    def score(values: Sequence[bytes]) -> None:
        requests = [msgpack.unpackb(value) for value in values]
        for request, prediction in zip(requests, predict([each["input_data"] for each in requests]), strict=True):
            result = {"id": request["id"], "model_id": request["model_id"], "version": version, "digest": digest}
            msgpack.packb(result | {"prediction": prediction})

    return score


def _worker(model: BenchModel) -> Score:
    """What a worker does with a micro-batch, between the records and the producer."""
    served = load_model(model.path, manifest_of(model.path.read_bytes(), MODEL_ID, 1))
    catalog = ModelCatalog()
    catalog.put(Version(served.manifest, "ready", None, served))
    scorer = Scorer(catalog, DEFAULT_LIMITS)

    def score(values: Sequence[bytes]) -> None:
        batch = scorer.prepare([(0, [Request(offset, value) for offset, value in enumerate(values)])], NOW_MS, None)
        for group in batch.groups:
            group.predict()
        batch.finish()

    return score


if __name__ == "__main__":
    sys.exit(main())
