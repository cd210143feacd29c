"""What shadow versions say about the requests of a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, Feature, Manifest, Preprocess, SplitShare
from inferd.schemas.shadow import ShadowResult, decode_shadow_result
from inferd.streams.inference import FeatureSchema, Outcome, ServedModel, ShadowTarget, compile_postprocess
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.shadow.scores import Micro, Part, ShadowScores, ShadowScoring
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, KernelScorer, TypedScorer, catalog_of, score

LIMITS = DEFAULT_LIMITS
HEADERS = {
    "content-type": b"application/json",
    "inferd-worker": b"w1",
    "inferd-alias-revision": b"4",
    "inferd-variant": b"shadow",
}


class Scaled(SumRuntime):
    """Predicts the sum of the features, scaled."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def predict(self, matrix: Any, outputs: Any) -> Any:
        return {output: values * self.scale for output, values in super().predict(matrix, outputs).items()}


def shadow_of(version: int = 9, scale: float = 2.0, names: Sequence[str] = ("a", "b"), **spec: Any) -> ServedModel:
    manifest = Manifest(
        "sum", version, "lightgbm", f"{version:064x}", 10, [Feature(name) for name in names], "regression", 1, **spec
    )
    return ServedModel(manifest, Scaled(scale), FeatureSchema(manifest), compile_postprocess(manifest))


def aliased(alias: Alias, *models: ServedModel) -> ModelCatalog:
    catalog = catalog_of(*models)
    catalog.put_alias("sum", "champion", alias)
    return catalog


def fetched(offset: int, rows: Any, model_id: str = "sum", **fields: Any) -> Fetched:
    body = {"id": f"r{offset}", "model_id": model_id, "input_data": rows, **fields}
    return Fetched(msgpack.packb(body), offset, b"k%d" % offset)


def part_of(outcome: Outcome, records: Sequence[Fetched], span: range | None = None, partition: int = 3) -> Part:
    span = span or range(len(records))
    micro = Micro("default", outcome.scored, outcome.shadows)
    return Part(micro, partition, records[span.start : span.stop], span)


def all_scores(part: Part, shadow: ServedModel) -> ShadowScores:
    ((target, _),) = part.targets()
    return ShadowScoring("w1").score(part, target, shadow)


def decoded(scores: ShadowScores) -> list[ShadowResult]:
    return [decode_shadow_result(value or b"") for _, value, _ in scores.results]


ALIAS = Alias(1, shadow=[9], revision=4)
RECORDS = [
    fetched(0, [1.0, 2.0]),
    fetched(1, [[1.0, 2.0], [3.0, 4.0]], "sum@champion"),
    fetched(2, [5.0, 6.0], "sum:1"),
    fetched(3, ["x", 6.0]),
    fetched(4, [7.0, 8.0], outputs=["raw", "prediction"]),
]


@pytest.mark.parametrize("scorer", [KernelScorer, TypedScorer])
def test_results_have_both_outputs_of_the_requests_by_alias_that_were_scored(scorer: Any) -> None:
    catalog = aliased(ALIAS, sum_model(1), shadow_of())
    scores = all_scores(part_of(score(scorer(catalog, LIMITS), RECORDS), RECORDS), shadow_of())
    found = {result.id: result for result in decoded(scores)}
    assert found == {
        "r0": ShadowResult("r0", "sum", 1, 9, {"prediction": 3.0}, {"prediction": 6.0}, 1),
        "r1": ShadowResult("r1", "sum", 1, 9, {"prediction": [3.0, 7.0]}, {"prediction": [6.0, 14.0]}, 2),
        "r4": ShadowResult("r4", "sum", 1, 9, {"prediction": 15.0, "raw": 15.0}, {"prediction": 30.0, "raw": 30.0}, 1),
    }
    assert {key for key, _, _ in scores.results} == {b"k0", b"k1", b"k4"}
    assert all(dict(headers) == HEADERS for _, _, headers in scores.results)
    assert (scores.requests, scores.rows, scores.compared, scores.differing) == (3, 4, 4, 4)
    assert dict(scores.dropped) == {"no_rows": 1}


def test_only_the_span_of_a_partition_is_scored() -> None:
    catalog = aliased(ALIAS, sum_model(1), shadow_of())
    records = [fetched(n, [float(n), 1.0]) for n in range(20)]
    outcome = score(KernelScorer(catalog, LIMITS), records)
    shadow = shadow_of(scale=1.0)
    scores = all_scores(part_of(outcome, records, range(5, 9)), shadow)
    assert [result.id for result in decoded(scores)] == ["r5", "r6", "r7", "r8"]
    assert shadow.runtime.calls == [4]  # type: ignore[attr-defined]
    assert (scores.compared, scores.differing) == (4, 0)


def test_each_version_of_a_split_is_compared_and_the_shadow_itself_is_not() -> None:
    split = Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0), SplitShare(9, 1.0)], shadow=[9])
    catalog = aliased(split, sum_model(1), sum_model(2), shadow_of())
    records = [fetched(n, [float(n), 1.0]) for n in range(60)]
    outcome = score(KernelScorer(catalog, LIMITS), records)
    scores = all_scores(part_of(outcome, records), shadow_of())
    answered = {(answer := msgpack.unpackb(value))["id"]: answer["version"] for value in outcome.values}
    assert {result.id: result.champion_version for result in decoded(scores)} == {
        request: version for request, version in answered.items() if version != 9
    }
    assert set(answered.values()) == {1, 2, 9}
    assert not scores.dropped


def test_a_request_without_id_has_that_of_its_place() -> None:
    catalog = aliased(ALIAS, sum_model(1), shadow_of())
    records = [Fetched(msgpack.packb({"model_id": "sum", "input_data": [1.0, 2.0]}), 7)]
    outcome = score(KernelScorer(catalog, LIMITS), records, partition=3)
    (result,) = decoded(all_scores(part_of(outcome, records), shadow_of()))
    assert result.id == msgpack.unpackb(outcome.values[0])["id"] == "3-7"


def test_fewer_features_in_another_order_are_taken_from_the_same_rows() -> None:
    features = [Feature("a"), Feature("b"), Feature("c", min=0.0)]
    manifest = Manifest("sum", 1, "lightgbm", "1" * 64, 10, features, "regression", 1)
    champion = ServedModel(manifest, SumRuntime(), FeatureSchema(manifest), compile_postprocess(manifest))
    shadow = shadow_of(scale=1.0, names=("b", "a"))
    records = [fetched(0, [1.0, 20.0, 300.0])]
    part = part_of(score(KernelScorer(aliased(ALIAS, champion, shadow), LIMITS), records), records)
    (result,) = decoded(all_scores(part, shadow))
    assert (result.champion, result.shadow) == ({"prediction": 321.0}, {"prediction": 21.0})


@pytest.mark.parametrize(
    "shadow",
    [
        shadow_of(names=("a", "c")),
        shadow_of(preprocess=Preprocess(defaults={"a": 1.0})),
        shadow_of(preprocess=Preprocess(out_of_range="clip")),
    ],
)
def test_other_features_are_dropped(shadow: ServedModel) -> None:
    part = part_of(score(KernelScorer(aliased(ALIAS, sum_model(1), shadow), LIMITS), RECORDS[:2]), RECORDS[:2])
    scores = all_scores(part, shadow)
    assert (dict(scores.dropped), scores.results) == ({"features": 2}, [])


def test_only_costly_outputs_are_dropped() -> None:
    class Contributions(SumRuntime):
        def supports(self, output: str) -> bool:
            return True

    catalog = aliased(ALIAS, sum_model(1, Contributions()), shadow_of())
    records = [fetched(0, [1.0, 2.0], outputs=["contributions"]), fetched(1, [1.0, 2.0], outputs=["raw"])]
    scores = all_scores(part_of(score(KernelScorer(catalog, LIMITS), records), records), shadow_of())
    assert dict(scores.dropped) == {"outputs": 1}
    (result,) = decoded(scores)
    assert (result.id, result.shadow, result.differing_rows) == ("r1", {"raw": 6.0}, None)
    assert scores.compared == 0


def test_what_is_not_finite_is_null() -> None:
    catalog = aliased(ALIAS, sum_model(1), shadow_of())
    records = [fetched(0, [1.0, 2.0])]
    part = part_of(score(KernelScorer(catalog, LIMITS), records), records)
    (result,) = decoded(all_scores(part, shadow_of(scale=float("nan"))))
    assert (result.shadow, result.differing_rows) == ({"prediction": None}, 1)


def test_joined_outcomes_have_the_marks_of_both() -> None:
    catalog = aliased(ALIAS, sum_model(1), shadow_of())
    records = [fetched(n, [float(n), 1.0], ("sum", "sum:1")[n % 2]) for n in range(12)]
    whole = score(KernelScorer(catalog, LIMITS), records)
    joined = score(KernelScorer(catalog, LIMITS), records[:5]) + score(KernelScorer(catalog, LIMITS), records[5:])
    target = ShadowTarget("sum", "champion", 4, (9,))
    assert np.array_equal(whole.shadows[target], joined.shadows[target])
    assert {each.id for each in decoded(all_scores(part_of(joined, records), shadow_of()))} == {
        f"r{n}" for n in range(0, 12, 2)
    }


ROWS = st.one_of(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2),
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), min_size=1, max_size=3),
    st.just(["x", 1.0]),
)
REQUESTS = st.lists(
    st.tuples(st.sampled_from(["sum", "sum@champion", "sum:1", "sum:2"]), ROWS), min_size=1, max_size=20
)


@given(REQUESTS, st.booleans())
def test_answers_are_the_same_bytes_with_and_without_a_shadow(requests: Any, split: bool) -> None:
    records = [fetched(n, rows, model_id) for n, (model_id, rows) in enumerate(requests)]
    target = Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0)]) if split else Alias(1)
    outcomes = []
    for shadow in (None, [9]):
        alias = msgspec.structs.replace(target, shadow=shadow)
        catalog = aliased(alias, sum_model(1), sum_model(2), shadow_of())
        outcome = score(KernelScorer(catalog, LIMITS), records)
        if outcome.shadows:
            all_scores(part_of(outcome, records), shadow_of())
        span = range(len(records))
        outcomes.append((list(outcome.values), outcome.headers, outcome.variants.of(span), sorted(outcome.failures)))
    assert outcomes[0] == outcomes[1]
