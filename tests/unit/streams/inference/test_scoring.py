"""A micro-batch of requests: one exact outcome per request, in order, with requests of the same version grouped."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np
import pytest

from inferd.schemas.codec import encode_result
from inferd.schemas.codecs import all_codecs
from inferd.schemas.limits import Limits
from inferd.schemas.models import Alias, Preprocess, SplitShare
from inferd.schemas.requests import ModelReference
from inferd.schemas.requests.result import Prediction
from inferd.streams.inference.catalog import Version
from inferd.streams.inference.result_template import ResultTemplate
from inferd.streams.inference.scoring import Scorer
from inferd.streams.inference.splits import versions_of
from inferd.streams.inference.work import halve
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, both, catalog_of, score

JSON = (("content-type", b"application/json"),)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(catalog_of(sum_model(1), sum_model(2)), Limits())


def pack(input_data: Any, model_id: str = "sum", **fields: Any) -> bytes:
    return bytes(msgpack.packb({"id": "r", "model_id": model_id, "input_data": input_data, **fields}))


def predictions(scorer: Scorer, *values: Any) -> list[Any]:
    return [msgpack.unpackb(value).get("prediction") for value in score(scorer, values).values]


def code_of(scorer: Scorer, value: Any, **more: Any) -> str:
    (answer,) = score(scorer, [value], **more).values
    return str(msgpack.unpackb(answer)["error"]["code"])


def test_one_row_gives_a_scalar_and_rows_give_a_list(scorer: Scorer) -> None:
    rows: list[Any] = [
        [1.0, 2.0], [[1.0, 2.0]], [[1.0, 2.0], [3, 4]], {"a": 1.0, "b": 2.0}, [{"b": 2.0, "a": 1.0}],
        {"dtype": "<f4", "shape": [2, 2], "data": np.array([[1, 2], [3, 4]], dtype="<f4").tobytes()},
    ]  # fmt: skip
    assert predictions(scorer, *map(pack, rows)) == [3.0, [3.0], [3.0, 7.0], 3.0, [3.0], [3.0, 7.0]]


def test_outputs_are_in_the_requested_order(scorer: Scorer) -> None:
    (answer,) = score(scorer, [pack([1.0, 2.0], outputs=["raw", "prediction"])]).values
    assert list(msgpack.unpackb(answer)) == ["id", "model_id", "version", "digest", "raw", "prediction"]


def test_the_newest_version_answers_a_bare_name_and_each_its_own(scorer: Scorer) -> None:
    answers = score(scorer, [pack([1.0, 2.0], m) for m in ("sum", "sum:1", "sum:2")]).values
    assert [msgpack.unpackb(a)["version"] for a in answers] == [2, 1, 2]


@pytest.mark.parametrize("keyed", [True, False], ids=["by key", "by id"])
def test_requests_to_a_split_take_the_plain_path_to_the_version_of_their_key(keyed: bool) -> None:
    catalog = catalog_of(sum_model(1), sum_model(2), sum_model(3))
    catalog.put_alias("sum", "canary", Alias(split=[SplitShare(1, 5.0), SplitShare(3, 1.5)]))
    records = [
        Fetched(pack([n, 1.0], "sum@canary", id=f"r{n}"), n, b"k%d" % (n % 50) if keyed else None) for n in range(300)
    ]
    fast, typed = (score(scorer, records) for scorer in both(catalog))
    assert list(fast.values) == list(typed.values)
    versions = [msgpack.unpackb(value)["version"] for value in fast.values]
    reference = ModelReference.parse("sum@canary")
    keys = [record.key or b"r%d" % record.offset for record in records]
    assert versions == [catalog.resolve(reference, key).manifest.version for key in keys]
    assert set(versions) == {1, 3}


def test_each_request_to_a_split_has_the_version_of_its_own_key() -> None:
    """Whatever the layout: the kernel reads some requests, the envelope decoder others; some rows need the typed path,
    some are invalid, and the versions differ in their features."""
    catalog = catalog_of(sum_model(1), sum_model(2), sum_model(3, preprocess=Preprocess(defaults={"b": 7.0})))
    shares = [SplitShare(2, 1.0), SplitShare(3, 1.5), SplitShare(1, 1.0)]
    catalog.put_alias("sum", "canary", Alias(split=shares))
    records = []
    for n in range(240):
        row: Any = [[n, 1.0], {"b": 1.0, "a": n}, [[n, 1.0]], [n, "x"], [n]][(0, 0, 0, 1, 0, 2, 0, 3, 4)[n % 9]]
        order = ("id", "model_id", "input_data") if n % 4 else ("input_data", "id", "model_id")
        fields = {"id": f"r{n}", "model_id": "sum@canary", "input_data": row}
        value = msgpack.packb({name: fields[name] for name in order})
        records.append(Fetched(value, n, (None, b"", b"k%d" % n)[n % 3]))
    fast, typed = (score(scorer, records) for scorer in both(catalog))
    assert list(fast.values) == list(typed.values)
    for record, value in zip(records, fast.values, strict=True):
        answer = msgpack.unpackb(value)
        if "version" in answer:
            (version,) = versions_of(shares, [record.key or f"r{record.offset}".encode()])
            assert answer["version"] == version


def test_scored_rows_have_the_inputs_and_values_of_each_record_of_each_version(scorer: Scorer) -> None:
    rows: list[list[Any]] = [[[n + k, 1.0] for k in range(n % 3 + 1)] for n in range(40)]
    values = [pack(rows[n], f"sum:{n % 2 + 1}") for n in range(40)]
    values[7] = pack([["x", 1.0]], "sum:2")
    for outcome in (score(scorer, values), score(scorer, values[:11]) + score(scorer, values[11:])):
        seen: dict[int, tuple[int, Any]] = {}
        for scored in outcome.scored:
            stops = np.cumsum(scored.counts)
            assert list(scored.ids) == ["r"] * len(scored.counts)
            for index, part in zip(scored.indexes, np.split(np.arange(len(scored.inputs)), stops[:-1]), strict=True):
                assert np.asarray(scored.inputs[part]).tolist() == rows[index]
                seen[index] = scored.model.manifest.version, scored.arrays["prediction"][part].tolist()
        assert seen == {n: (n % 2 + 1, [sum(row) for row in rows[n]]) for n in range(40) if n != 7}


def variant(revision: int, name: str) -> tuple[tuple[str, bytes], ...]:
    return ("inferd-alias-revision", b"%d" % revision), ("inferd-variant", name.encode())


def test_results_say_which_variant_of_an_alias_scored_them_also_errors() -> None:
    catalog = catalog_of(sum_model(1), sum_model(2))
    catalog.put(Version(sum_model(3).manifest, "fetching"))
    shares = [SplitShare(1, 1.0), SplitShare(2, 1.5), SplitShare(3, 1.0)]
    catalog.put_alias("sum", "champion", Alias(split=shares, revision=7))
    catalog.put_alias("sum", "next", Alias(version=2, revision=1))
    catalog.put_alias("sum", "old", Alias(version=9))
    ids = [f"r{n}" for n in range(80)]
    records = [Fetched(pack([n, 1.0 if n % 5 else "x"], id=each), n) for n, each in enumerate(ids)]
    expected = [variant(7, "champion" if v == 2 else "canary") for v in versions_of(shares, ids).tolist()]
    records += [
        Fetched(pack([1.0, 2.0], "sum@next")),
        Fetched(pack([[1.0, 2.0]], "sum@next")),
        Fetched(pack([1.0, 2.0], "sum@old")),
        Fetched(pack([1.0, 2.0], "sum:1")),
        Fetched(pack([1.0, 2.0], "sum@none")),
        Fetched(pack([[1.0, 2.0], [1.0, "x"]], "sum@next"), headers=(("row-errors", b"true"),)),
        Fetched(b"{"),
    ]
    expected += [variant(1, "champion")] * 2 + [variant(0, "champion"), (), (), variant(1, "champion"), ()]
    for scorer in both(catalog):
        outcome = score(scorer, records)
        assert outcome.variants.of(range(len(records))) == expected
        assert [outcome.variants.at(index) for index in range(len(records))] == expected
        names = {outcome.variants.choice(index).alias for index in range(len(records))}
        assert names == {None, "champion", "next", "old"}
        halves = score(scorer, records[:30]) + score(scorer, records[30:])
        assert halves.variants.of(range(len(records))) == expected
        assert score(scorer, records[-1:]).variants.of(range(1)) is None
        mixed = score(scorer, records[-1:]) + score(scorer, records[:1])
        assert mixed.variants.of(range(2)) == [(), expected[0]]


def test_requests_to_a_split_are_not_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = catalog_of(sum_model(1), sum_model(2))
    catalog.put_alias("sum", "champion", Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0)]))
    monkeypatch.setattr(Scorer, "_prepare_one", None)
    outcome = score(Scorer(catalog, Limits()), [pack([float(n), 1.0], id=f"r{n}") for n in range(50)])
    assert [msgpack.unpackb(value)["prediction"] for value in outcome.values] == [n + 1.0 for n in range(50)]


def test_a_share_whose_rows_are_all_invalid_has_no_group_to_score() -> None:
    catalog = catalog_of(sum_model(1), sum_model(2))
    shares = [SplitShare(1, 1.0), SplitShare(2, 1.0)]
    catalog.put_alias("sum", "champion", Alias(split=shares))
    ids = [f"r{n}" for n in range(40)]
    chosen = versions_of(shares, ids).tolist()
    records = [
        pack([1.0, 1.0] if version == 2 else ["x", 1.0], id=each) for each, version in zip(ids, chosen, strict=True)
    ]
    for scorer in both(catalog):
        outcome = score(scorer, records)
        assert {index for index, version in enumerate(chosen) if version == 1} == set(outcome.failures)
        assert [rows.model.manifest.version for rows in outcome.scored] == [2]


def test_a_share_that_is_not_ready_fails_its_own_requests() -> None:
    catalog = catalog_of(sum_model(1))
    catalog.put(Version(sum_model(2).manifest, "fetching"))
    catalog.put_alias("sum", "champion", Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0)]))
    fast, typed = (score(each, [pack([1.0, 2.0], id=f"r{n}") for n in range(50)]) for each in both(catalog))
    assert list(fast.values) == list(typed.values)
    codes = [msgpack.unpackb(value).get("error", {}).get("code") for value in fast.values]
    assert set(codes) == {None, "model_not_ready"}


def test_json_is_answered_in_json(scorer: Scorer) -> None:
    good = json.dumps({"id": "r", "model_id": "sum", "input_data": {"a": 1, "b": 2}}).encode()
    outcome = score(scorer, [Fetched(good, headers=JSON), Fetched(b"{", headers=JSON)])
    assert json.loads(outcome.values[0])["prediction"] == 3.0
    assert json.loads(outcome.values[1])["error"]["code"] == "malformed"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "malformed"),
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (pack([1.0, 2.0]) + b"\0", "malformed"),
        (pack([1.0]), "schema_mismatch"),
        (pack([1.0, 2.0, 3.0]), "schema_mismatch"),
        (pack({"a": 1.0, "c": 2.0}), "schema_mismatch"),
        (pack([1.0, float("inf")]), "invalid_value"),
        (pack([1.0, "x"]), "invalid_value"),
        (pack([1.0, 2.0], outputs=["leaves"]), "invalid_value"),
        (pack([1.0, 2.0], outputs=["nonsense"]), "invalid_value"),
        (pack([1.0, 2.0], outputs=["prediction", "nonsense", "leaves"]), "invalid_value"),
        (pack([1.0, 2.0], "other"), "model_not_found"),
        (pack([1.0, 2.0], "sum:9"), "version_not_found"),
        (pack([1.0, 2.0], "sum@blue"), "version_not_found"),
        (pack([1.0, 2.0], "../sum"), "invalid_id"),
        (pack([1.0, 2.0], id="a\nb"), "invalid_id"),
        (pack([1.0, 2.0], color="red"), "malformed"),
        (pack([[1.0, 2.0]] * 10_001), "too_large"),
        (pack([[[[[[[[[[[[[[[[[[1.0]]]]]]]]]]]]]]]]]]), "too_deep"),
        (Fetched(pack([1.0, 2.0]), headers=(("content-type", b"text/csv"),)), "unsupported_content_type"),
        (Fetched(pack([1.0, 2.0]), headers=(("deadline", b"soon"),)), "invalid_header"),
        (Fetched(pack([1.0, 2.0]), headers=(("reply-to", b"elsewhere"),)), "reply_to_refused"),
        (Fetched(pack([1.0, 2.0]), headers=(("deadline", b"1"),)), "deadline_exceeded"),
    ],
)
def test_each_bad_request_has_its_code_and_does_not_affect_its_neighbours(
    scorer: Scorer, value: Any, code: str
) -> None:
    assert code_of(scorer, value, now_ms=10) == code
    good = pack([1.0, 2.0])
    outcome = score(scorer, [good, value, good], now_ms=10)
    assert [msgpack.unpackb(v).get("prediction") for v in outcome.values] == [3.0, None, 3.0]


def test_a_late_request_gets_the_same_bytes_whenever_it_is_answered(scorer: Scorer) -> None:
    late = Fetched(pack([1.0, 2.0]), headers=(("deadline", b"1000"),))
    answers = [score(scorer, [late], now_ms=now_ms).values for now_ms in (1_001, 9_999)]
    assert answers[0] == answers[1]
    assert msgpack.unpackb(answers[0][0])["error"]["code"] == "deadline_exceeded"


def test_a_version_that_is_not_ready_is_retryable() -> None:
    catalog = catalog_of()
    manifest = sum_model().manifest
    catalog.put(Version(manifest, "trying", "it is being tested"))
    (answer,) = score(Scorer(catalog, Limits()), [pack([1.0, 2.0])]).values
    assert msgpack.unpackb(answer)["error"] == {
        "code": "model_not_ready",
        "message": "no version of 'sum' is ready; 1 is trying: it is being tested",
        "retryable": True,
    }


def test_a_result_over_the_limit_becomes_an_error() -> None:
    scorer = Scorer(catalog_of(sum_model()), Limits(result_bytes_max=300))
    values = score(scorer, [pack([[1.0, 2.0]] * 100), pack([[1.0, 2.0]] * 2)]).values
    assert msgpack.unpackb(values[0])["error"]["code"] == "too_large"
    assert msgpack.unpackb(values[1])["prediction"] == [3.0, 3.0]


def test_a_non_finite_output_is_an_error_of_its_request_alone() -> None:
    runtime = SumRuntime()
    runtime.predict = lambda matrix, outputs: {o: np.where(matrix[:, 0] > 5, np.inf, 1.0) for o in outputs}  # type: ignore[method-assign]
    scorer = Scorer(catalog_of(sum_model(runtime=runtime)), Limits())
    values = score(scorer, [pack([1.0, 0.0]), pack([[1.0, 0.0], [9.0, 0.0]]), pack([2.0, 0.0])]).values
    answers = [msgpack.unpackb(v) for v in values]
    assert [a.get("prediction") for a in answers] == [1.0, None, 1.0]
    assert "row 1" in answers[1]["error"]["message"]


@pytest.mark.parametrize("codec", all_codecs(), ids=str)
@pytest.mark.parametrize(
    "outputs",
    [
        ("prediction",),
        ("raw", "prediction", "leaves"),
        ("embedding",),
        ("raw", "é:0", "b"),
        ("prediction", "raw", "own"),
    ],
)
def test_templates_produce_the_bytes_of_the_codec(codec: Any, outputs: Any) -> None:
    manifest = sum_model().manifest
    values = dict(zip(outputs, [1.5, [0.1, 2e300], [1, 2]], strict=False))
    expected = encode_result(Prediction("r:1", "sum", 1, manifest.sha256, values), codec)
    template = ResultTemplate(manifest, outputs, codec)
    assert template.render("r:1", values.values()) == expected
    if len(outputs) == 1:
        assert template.render_columns(["r:1"] * 2, [[1.5, 1.5]]) == [expected] * 2


def test_counts_are_by_model() -> None:
    scorer = Scorer(catalog_of(sum_model(1), sum_model(2)), Limits())
    outcome = score(scorer, [pack([1.0, 2.0]), pack([[1.0, 2.0]] * 3, "sum:1"), b""])
    assert outcome.by_model == {("sum", 2): (1, 1), ("sum", 1): (1, 3)}
    assert (outcome.rows, list(outcome.failures)) == (4, [2])


def test_outcomes_add_up_in_order() -> None:
    scorer = Scorer(catalog_of(sum_model()), Limits())
    values: list[Any] = [pack([1.0, 2.0]), b"", Fetched(b"{", headers=JSON, offset=2), pack([3.0, 2.0])]
    whole = score(scorer, values)
    first = score(scorer, values[:2])
    second = score(scorer, [values[2], Fetched(pack([3.0, 2.0]), offset=3)])
    added = first + second
    assert list(added.values) == list(whole.values)
    assert {i: e.code for i, e in added.failures.items()} == {i: e.code for i, e in whole.failures.items()}
    assert added.headers == whole.headers


def test_halving_ends_at_single_records() -> None:
    records = [Fetched(b"", offset=n) for n in range(5)]
    stack: list[Any] = [[(0, records[:3]), (1, records[3:])]]
    singles = []
    while stack:
        work = stack.pop(0)
        halves = halve(work)
        if halves is None:
            singles += [(partition, r.offset) for partition, part in work for r in part]
        else:
            stack = [*halves, *stack]
    assert singles == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4)]


def test_a_result_that_cannot_fit_is_rejected_before_it_is_computed() -> None:
    runtime = SumRuntime()
    runtime.values_per_row = lambda output: 1_000_000  # type: ignore[method-assign]
    scorer = Scorer(catalog_of(sum_model(runtime=runtime)), Limits())
    assert code_of(scorer, pack([[1.0, 2.0], [3.0, 4.0]])) == "too_large"
    assert runtime.calls == []
