"""Counts of micro-batches: they equal a recount of the results, by version, whatever is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.schemas.codec import decode_result
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, SplitShare
from inferd.schemas.monitoring import Baseline, WindowStats, decode_baseline, decode_window, latency_bin, merged
from inferd.schemas.requests import Failure
from inferd.streams.inference import Outcome, Scorer
from inferd.streams.lane import OutputBatch
from inferd.streams.monitoring import CountedPart, Monitor, PredictionCounter, RowSample, make_baseline
from inferd.streams.monitoring import monitor as monitor_module
from inferd.streams.settings import Monitoring
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, catalog_of, finish

TOPIC = "ns.default.model-stats"
NOW_S = 100_000.0
MINUTE = int(NOW_S) // 60
MODELS = ("sum", "sum:1", "sum:2", "sum@split", "sum:7", "nothing")
ROWS: tuple[Any, ...] = ([1.0, 2.0], [3.0, None], [[1.0, 2.0], [5.0, 6.0]], {"a": 1.0, "b": 2.0}, [1.0], "bad")


class FailingRuntime(SumRuntime):
    def predict(self, inputs: Any, outputs: Any) -> Any:
        if (inputs[:, 0] == 3.0).any():
            raise RuntimeError("three")
        return super().predict(inputs, outputs)


def scorer() -> Scorer:
    catalog = catalog_of(sum_model(1), sum_model(2, FailingRuntime()))
    catalog.put_alias("sum", "split", Alias(split=[SplitShare(1, 1), SplitShare(2, 1)], revision=5))
    catalog.put_alias("sum", "champion", Alias(version=1, revision=9))
    return Scorer(catalog, DEFAULT_LIMITS)


def scored(scorer: Scorer, parts: Sequence[Sequence[Fetched]]) -> Outcome:
    return finish(scorer.prepare([(number, part) for number, part in enumerate(parts) if part], 0))


def counted(
    monitor: Monitor, scorer: Scorer, parts: Sequence[Sequence[Fetched]], *, direct: bool = False
) -> tuple[Outcome, list[OutputBatch | None]]:
    """The outcome of the parts, and their outputs; the last one is of requests over HTTP if `direct`."""
    parts = [part for part in parts if part]
    outcome = scored(scorer, parts)
    ends = accumulate(map(len, parts))
    spans = [
        CountedPart(range(end - len(part), end), [record.timestamp for record in part])
        for end, part in zip(ends, parts, strict=True)
    ]
    records = [record for part in parts for record in part]
    outputs: list[OutputBatch | None] = [OutputBatch(1, len(part), []) for part in parts]
    if direct and outputs:
        outputs[-1] = None
    monitor.add(
        outputs, spans, outcome, lambda index: scorer.version_of(outcome.asked.get(index), records[index].key)
    )  # fmt: skip
    return outcome, outputs


def windows(*outputs: OutputBatch | None) -> list[WindowStats]:
    found = []
    for output in outputs:
        for (topic, number), records in output.by_topic.items() if output is not None else ():
            assert (topic, number) == (TOPIC, 0)
            for key, value, headers in records:
                window = decode_window(value)
                assert (key, headers) == (window.model_id.encode(), [])
                found.append(window)
    return found


def request(model: str, row: Any, place: int) -> Fetched:
    value = msgspec.msgpack.encode({"id": f"r{place}", "model_id": model, "input_data": row})
    return Fetched(value, place, b"k%d" % place, timestamp=int(NOW_S * 1000) - 10 * place)


def test_all_rows_are_counted_together_if_they_need_not_be_in_the_transaction_of_their_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sums are those that are counted at once, whatever the sizes of the micro-batches."""
    monkeypatch.setattr(monitor_module, "COUNTED_ROWS", 7)
    now, totals = [NOW_S], []
    for exact in (True, False):
        monitor = Monitor(TOPIC, "all", lambda _model, _version: baseline(), exact=exact, clock=lambda: now[0])
        under_test, found = scorer(), list[WindowStats]()
        for first in range(0, 40, 5):
            models = ("sum", "sum@split", "sum:1")
            part = [request(models[n % 3], [[1.0 * n, 2.0]] * (1 + n % 2), n) for n in range(first, first + 5)]
            now[0] += 2 * monitor_module.FLUSH_S if first == 35 else 0
            _, outputs = counted(monitor, under_test, [part])
            found += windows(*outputs)
        now[0] = NOW_S
        totals.append(sorted(map(repr, windows_by_label(found))))
    assert totals[0] == totals[1]


def windows_by_label(found: list[WindowStats]) -> list[WindowStats]:
    labels: dict[Any, list[WindowStats]] = {}
    for window in found:
        labels.setdefault((window.version, window.alias, window.variant, window.alias_revision), []).append(window)
    totals = [merged(each) for each in labels.values()]
    return [total for total in totals if total is not None]


@settings(max_examples=60)
@given(st.lists(st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from(ROWS)), max_size=12), max_size=3))
def test_counts_equal_a_recount_of_the_results(given_parts: list[list[tuple[str, Any]]]) -> None:
    under_test, monitor = scorer(), Monitor(TOPIC, "all", clock=lambda: NOW_S)
    parts = [
        [request(model, row, 100 * number + place) for place, (model, row) in enumerate(part)]
        for number, part in enumerate(given_parts)
    ]
    outcome, outputs = counted(monitor, under_test, parts)
    index = 0
    for part, asked, output in zip(filter(None, parts), filter(None, given_parts), outputs, strict=True):
        requests: Counter[Any] = Counter()
        errors: Counter[Any] = Counter()
        for record, (model, _) in zip(part, asked, strict=True):
            known = index in outcome.asked or index not in outcome.failures
            if known and (version := under_test.version_of(model, record.key)) is not None:
                alias = dict(outcome.variants.at(index))
                revision, variant = alias.get("inferd-alias-revision"), alias.get("inferd-variant")
                key = (*version, variant and variant.decode(), revision and int(revision))
                requests[key] += 1
                if isinstance(result := decode_result(outcome.values[index], MSGPACK), Failure):
                    errors[*key, result.code] += 1
            index += 1
        found = windows(output)
        keys = [(window.model_id, window.version, window.variant, window.alias_revision) for window in found]
        assert {key: window.requests for key, window in zip(keys, found, strict=True)} == requests
        assert len(keys) == len(requests)
        by_code = {(*k, code): n for k, window in zip(keys, found, strict=True) for code, n in window.errors.items()}
        assert by_code == errors
        assert all(window.minute == MINUTE for window in found)
        assert all(sum(window.latency.values()) == window.requests for window in found)


def test_errors_of_a_model_count_for_the_version_that_raised() -> None:
    """Not for the champion, which the bare name means."""
    under_test, monitor = scorer(), Monitor(TOPIC, "sampled", clock=lambda: NOW_S)
    _, outputs = counted(monitor, under_test, [[request("sum:2", [3.0, 1.0], 0), request("sum:2", [1.0, 1.0], 1)]])
    (window,) = windows(*outputs)
    assert (window.version, window.requests, window.rows, window.errors) == (2, 2, 1, {"internal": 1})


def test_latencies_are_from_the_timestamp_to_the_result() -> None:
    under_test, monitor = scorer(), Monitor(TOPIC, "sampled", clock=lambda: NOW_S)
    _, outputs = counted(monitor, under_test, [[request("sum:1", [1.0, 1.0], n) for n in range(100)]])
    (window,) = windows(*outputs)
    assert window.latency == dict(sorted(Counter(latency_bin(10 * n) for n in range(100)).items()))


def baseline(rows: int = 1_000) -> Baseline:
    model = sum_model(1)
    values = np.random.default_rng(1).normal(size=(rows, 2))
    return make_baseline(model.features, values, sum_predictions(values), 7, "given")


def sum_predictions(values: Any) -> Any:
    return PredictionCounter(sum_model(1)).count({"prediction": values.sum(axis=1)}, slice(None))


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_features_and_predictions_of_all_rows_or_of_some(mode: Monitoring) -> None:
    now = [NOW_S]
    monitor = Monitor(TOPIC, mode, lambda name, _: baseline() if name == "sum" else None, clock=lambda: now[0])
    under_test = scorer()
    values = np.random.default_rng(2).normal(size=(600, 2)).round(6)
    parts = [[request("sum:1", row, n) for n, row in enumerate(values[part : part + 300].tolist())]
             for part in (0, 300)]  # fmt: skip
    _, first = counted(monitor, under_test, parts)
    now[0] += 2
    _, then = counted(monitor, under_test, [parts[0][:1]])
    total = merged(windows(*first, *then))
    assert total is not None
    looked_at = 601 if mode == "all" else 257
    assert total.requests == total.rows == 601
    assert total.features.baseline == 7
    assert total.features.rows == looked_at
    assert {sum(feature.counts) for feature in total.features.by_name.values()} == {looked_at}
    assert sum(total.predictions.counts.values()) == looked_at
    assert total.predictions.scale == "log"
    if mode == "all":
        assert all(window.features.rows == window.requests for window in windows(*first)), "of each part its own"


def test_counts_of_http_requests_go_with_a_later_output() -> None:
    now = [NOW_S]
    under_test, monitor = scorer(), Monitor(TOPIC, "sampled", clock=lambda: now[0])
    _, outputs = counted(monitor, under_test, [[request("sum:1", [1.0, 1.0], 0)]], direct=True)
    assert windows(*outputs) == []
    idle = OutputBatch(1, 0, [])
    monitor.flush(idle)
    assert windows(idle) == [], "not at once"
    now[0] += 2
    monitor.flush(idle)
    total = merged(windows(idle))
    assert total is not None
    assert (total.requests, sum(total.predictions.counts.values())) == (1, 1)
    assert not monitor.due(now[0] + 2)


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_a_version_without_a_baseline_learns_one(mode: Monitoring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "LEARNED_ROWS", 500)
    now, known = [NOW_S], dict[tuple[str, int], Baseline]()
    monitor = Monitor(
        TOPIC, mode, lambda *version: known.get(version), learns=True, clock=lambda: now[0]
    )  # fmt: skip
    under_test = scorer()
    assert [tp.topic for tp in monitor.outputs()] == [TOPIC]
    for _ in range(3):
        rows = np.random.default_rng(2).normal(size=(250, 2)).tolist()
        now[0] += 2
        _, (output,) = counted(monitor, under_test, [[request("sum:1", row, n) for n, row in enumerate(rows)]])
        assert output is not None
        proposed = [record for record in output.by_topic[TOPIC, 0] if record[0] != b"sum"]
        output.by_topic[TOPIC, 0] = [record for record in output.by_topic[TOPIC, 0] if record[0] == b"sum"]
        if proposed:
            break
    ((key, value, headers),) = proposed
    assert (key, headers) == (b"sum/1#learned", [])
    known["sum", 1] = learned = decode_baseline(value)
    assert (learned.source, learned.rows, set(learned.features)) == ("learned", 500, {"a", "b"})
    assert sum(learned.predictions.counts.values()) == 500
    now[0] += 2
    _, outputs = counted(monitor, under_test, [[request("sum:1", [0.0, 1.0], 0)]])
    now[0] += 2
    _, then = counted(monitor, under_test, [[request("sum:1", [0.0, 1.0], 0)]])
    total = merged(windows(*outputs, *then))
    assert total is not None
    assert total.features.baseline == learned.revision


def test_features_and_predictions_of_a_shadow_version_are_counted_without_its_requests() -> None:
    now = [NOW_S]
    monitor = Monitor(TOPIC, "sampled", lambda _model, _version: baseline(), clock=lambda: now[0])
    model = sum_model(2)
    inputs = np.array([[float(row % 4), 1.0] for row in range(1_000)])
    sample = RowSample.of(model, inputs, model.runtime.predict(inputs, ("prediction",)))
    assert len(sample.inputs) == len(sample.arrays["prediction"]) == 256
    window = WindowStats(model_id="sum", version=2, minute=MINUTE, alias="eu", variant="shadow", alias_revision=4,
                         requests=1_000)  # fmt: skip
    monitor.later(window, [sample])
    now[0] += 2
    _, outputs = counted(monitor, scorer(), [[request("sum:1", [0.0, 1.0], 0)]])
    shadow = [each for each in windows(*outputs) if each.variant == "shadow"]
    total = merged(shadow)
    assert total is not None
    assert (total.requests, total.alias, total.alias_revision) == (1_000, "eu", 4)
    assert sum(total.predictions.counts.values()) == 256
    assert total.features.rows == 256


def test_what_waits_is_bounded() -> None:
    monitor = Monitor(TOPIC, "sampled", clock=lambda: NOW_S)
    for minute in range(1_010):
        monitor.later(WindowStats(model_id="sum", version=1, minute=minute, requests=1))
    monitor.later(WindowStats(model_id="sum", version=1, minute=0, requests=1))
    assert monitor.dropped == 10


def test_nothing_is_counted_if_it_is_off() -> None:
    monitor = Monitor(TOPIC, "off", clock=lambda: NOW_S)
    _, outputs = counted(monitor, scorer(), [[request("sum:1", [1.0, 1.0], 0)]])
    assert windows(*outputs) == []
    assert list(monitor.outputs()) == []


def test_a_fault_stops_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(TOPIC, "all", clock=lambda: NOW_S)
    monkeypatch.setattr(monitor, "_counters_of", None)
    _, outputs = counted(monitor, scorer(), [[request("sum:1", [1.0, 1.0], 0)]])
    assert windows(*outputs) == []
