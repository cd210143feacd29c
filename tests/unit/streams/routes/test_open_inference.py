"""Requests of the Open Inference Protocol in routes: rows, both layouts, and the bytes of answers on `results`."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Feature, Manifest
from inferd.schemas.protocols import Exchanges
from inferd.schemas.routes import Format, Route, Sink, Source
from inferd.streams.inference import ModelCatalog, Outcome, Scorer, ServedModel, Version, compile_postprocess
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.routes import RouteScorer
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.route_formats import check
from tests.fixtures.scoring import Fetched, catalog_of, finish
from tests.unit.streams.routes.test_scoring import rich_model

OIP = ("content-type", b"application/vnd.oip.v2+json")
LENGTH = "inference-header-content-length"
ROUTE = Route("r", Source(["in"], Format("oip")), "sum", Sink("out", "result"))


def scorer(models: ModelCatalog | None = None, **changes: Any) -> RouteScorer:
    return RouteScorer(
        msgspec.structs.replace(ROUTE, **changes), models or catalog_of(sum_model(1)), DEFAULT_LIMITS, "inferd"
    )


def score(scorer: RouteScorer, *records: Fetched) -> Outcome:
    for offset, record in enumerate(records):
        record.offset = offset
    return finish(scorer.of_topic("in").prepare([(0, records)], 0))


def tensor(name: str, *values: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": "FP64", "data": [*values], **more}


def request(*inputs: dict[str, Any], headers: Any = (), **more: Any) -> Fetched:
    return Fetched(json.dumps({"inputs": inputs, **more}).encode(), 0, b"k", headers)


def matrix(rows: int, *values: float) -> dict[str, Any]:
    return tensor("all", *values, shape=[rows, len(values) // rows])


def data_of(value: bytes, output: str = "prediction") -> Any:
    (found,) = [each for each in json.loads(value)["outputs"] if each["name"] == output]
    return found["data"]


def test_records_have_any_number_of_rows_and_keep_their_order() -> None:
    records = [
        request(tensor("a", 1, 2, 3), tensor("b", 10, 20, 30), id="first"),
        request(tensor("b", 1), tensor("other", "x", datatype="BYTES"), tensor("a", 5)),
        request(matrix(2, 1, 2, 3, 4)),
        request(tensor("a"), tensor("b"), id="none"),
        request(tensor("a", 7, shape=[1, 1]), tensor("b", 1, shape=[1, 1])),
    ]
    outcome = score(scorer(), *records)
    assert not outcome.failures
    assert [data_of(value) for value in outcome.values] == [[11, 22, 33], [6], [3, 7], [], [8]]
    first = json.loads(outcome.values[0])
    assert (first["id"], first["model_name"], first["model_version"]) == ("first", "sum", "1")
    assert "id" not in json.loads(outcome.values[1])
    assert outcome.rows == 7


def test_a_micro_batch_without_any_row() -> None:
    outcome = score(scorer(), request(tensor("a"), tensor("b")))
    assert (outcome.failures, data_of(outcome.values[0])) == ({}, [])


def test_inputs_have_other_names_and_what_is_beside_the_value_is_that_of_all_rows() -> None:
    record = request(tensor("x", 1, 2), headers=(("h", b"10"),))
    assert data_of(score(scorer(features={"a": "x", "b": "$headers.h"}), record).values[0]) == [11, 12]
    assert data_of(score(scorer(features={"a": "x"}, constants={"b": 5}), record).values[0]) == [6, 7]
    one_column = request(tensor("all", 1, 2, shape=[2, 1], parameters={"content_type": "np"}))
    assert data_of(score(scorer(constants={"a": 5}), one_column).values[0]) == [6, 7]
    assert data_of(score(scorer(constants={"a": 5, "b": 1}), record).values[0]) == [6, 6]


def test_errors_fail_their_record_as_a_whole_and_no_other() -> None:
    bad = {
        "malformed": Fetched(b"{"),
        "malformed ": Fetched(b'{"inputs": 1}'),
        "malformed  ": request(tensor("a", 1), tensor("a", 1)),
        "schema_mismatch": request(tensor("a", 1)),
        "schema_mismatch ": request(matrix(1, 1, 2, 3)),
        "schema_mismatch  ": request(tensor("a", 1, 2), tensor("b", 1)),
        "schema_mismatch   ": request(),
        "invalid_value": request(tensor("a", 1, "x", datatype="BYTES"), tensor("b", 1, 2)),
        "invalid_value ": request(tensor("a", "1", "x", datatype="BYTES"), tensor("b", 1, 2)),
        "invalid_value  ": request(tensor("a", 1, None), tensor("b", 1, 2)),
        "invalid_header": request(tensor("a", 1), tensor("b", 1), headers=((LENGTH, b"x"),)),
        "too_large": request(tensor("a", shape=[10**9]), tensor("b", 1)),
    }
    good = [request(tensor("a", n, n), tensor("b", 0, 1)) for n in range(len(bad))]
    records = [each for pair in zip(good, bad.values(), strict=True) for each in pair]
    outcome = score(scorer(), *records)
    assert [outcome.failures[index].code for index in sorted(outcome.failures)] == [code.strip() for code in bad]
    assert [data_of(value) for value in outcome.values[::2]] == [[n, n + 1] for n in range(len(bad))]
    assert set(outcome.values[1::2]) == {b""}


def test_an_error_names_the_row_and_is_a_response_if_it_goes_to_the_sink() -> None:
    wrong = request(
        tensor("a", 1, 2, 3), tensor("b", "1", "2", "x", datatype="BYTES"), id="q", headers=(OIP, (LENGTH, None))
    )
    outcome = score(scorer(on_error="sink"), request(tensor("a", 1), tensor("b", 1)), wrong, Fetched(b"{"))
    said = json.loads(outcome.values[1])
    assert said == {"id": "q", "error": f"invalid_value: {outcome.failures[1].message}"}
    assert outcome.failures[1].message.startswith("row 0, feature 'b'")
    assert outcome.sink_headers[1] == [OIP]
    assert outcome.values[2] == b""


def test_rows_and_values_are_limited_as_in_requests() -> None:
    limited = RouteScorer(ROUTE, catalog_of(sum_model(1)), Limits(rows_max=3, values_max=5), "inferd")
    outcome = score(
        limited,
        request(tensor("a", 1, 2, 3), tensor("b", 1, 2, 3)), request(tensor("a", *[1] * 4), tensor("b", *[1] * 4)),
        request(matrix(3, 1, 2, 3, 4, 5, 6)), request({**matrix(1, 1, 2), "shape": [10**9, 0]}),
    )  # fmt: skip
    assert {index: error.code for index, error in outcome.failures.items()} == dict.fromkeys((1, 2, 3), "too_large")


def test_outputs_are_those_of_the_route_or_fewer() -> None:
    inputs = (tensor("a", 1, 2), tensor("b", 1, 1))
    both = scorer(outputs=["prediction", "raw"])
    outcome = score(
        both,
        request(*inputs),
        request(*inputs, outputs=[{"name": "raw"}]),
        request(*inputs, outputs=[{"name": "leaves"}]),
    )
    names = [[each["name"] for each in json.loads(value)["outputs"]] for value in outcome.values[:2]]
    assert names == [["prediction", "raw"], ["raw"]]
    assert isinstance(outcome.failures[2], InvalidValueError)
    assert "prediction, raw" in outcome.failures[2].message


@pytest.mark.parametrize("binary", [True, False])
def test_requests_of_a_public_client(binary: bool) -> None:
    inputs = []
    for name, values in (("a", [[1.0], [2.0]]), ("b", [[3.0], [0.5]])):
        made = InferInput(name, [2, 1], "FP64")
        inputs.append(made.set_data_from_numpy(np.array(values), binary_data=binary))
    outputs = [InferRequestedOutput("prediction", binary_data=binary)]
    body, length = InferenceServerClient.generate_request_body(inputs, outputs=outputs)
    headers = [("trace", b"t")] + ([] if length is None else [("Inference-Header-Content-Length", b"%d" % length)])
    outcome = score(scorer(), Fetched(body, 0, None, headers))
    described = dict(outcome.sink_headers[0])
    assert (described["trace"], described["content-type"]) == (b"t", OIP[1])
    assert (LENGTH in described, len(described)) == (binary, 2 + binary)
    result = InferResult.from_response_body(outcome.values[0], header_length=int(described.get(LENGTH) or 0) or None)
    assert result.as_numpy("prediction").tolist() == [4.0, 2.5]


def test_a_model_that_raises_for_one_record_fails_it_alone() -> None:
    runtime = SumRuntime()
    runtime.raises = lambda matrix: ZeroDivisionError("bug") if (matrix[:, 0] == 2).any() else None
    records = [request(tensor("a", n, n + 0.5), tensor("b", 0, 0)) for n in range(4)]
    outcome = score(scorer(catalog_of(sum_model(1, runtime))), *records)
    assert {index: error.code for index, error in outcome.failures.items()} == {2: "internal"}
    assert [data_of(value) for value in outcome.values if value] == [[0, 0.5], [1, 1.5], [3, 3.5]]


NUMBERS = st.none() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False, width=32)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from(["x", "y", "other", None]), NUMBERS), max_size=4)


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_responses_are_byte_for_byte_those_of_requests(batches: list[list[Any]]) -> None:
    served = rich_model()
    models = catalog_of(served)
    records = []
    for rows in batches:
        columns = [*zip(*rows, strict=True)] or [(), (), (), ()]
        inputs = [
            tensor(name, *values, datatype="BYTES" if name == "c" else "FP64")
            for name, values in zip("abcd", columns, strict=True)
        ]
        records.append(request(*inputs, model_name="rich", id="q", headers=(OIP,)))
    routed = score(scorer(models, model="rich"), *records)
    asked = finish(Scorer(models, DEFAULT_LIMITS, exchanges=Exchanges(DEFAULT_LIMITS)).prepare([(0, records)], 0))
    assert {n: error.code for n, error in routed.failures.items()} == {n: e.code for n, e in asked.failures.items()}
    for index, value in enumerate(routed.values):
        if index not in routed.failures:
            assert value == asked.values[index]


def test_an_unfit_row_fails_its_record() -> None:
    features = [Feature("a"), Feature("b")]
    manifest = Manifest("sum", 1, "lightgbm", "0" * 64, 10, features, "regression", 1)
    runtime = SumRuntime()
    served = ServedModel(manifest, runtime, FeatureSchema(manifest), compile_postprocess(manifest))
    models = ModelCatalog()
    models.put(Version(served.manifest, "ready", served=served))
    records = [request(tensor("a", 1, 2), tensor("b", 1, 1)), request(tensor("a", 1, None), tensor("b", 1, 1))]
    outcome = score(scorer(models), *records, request(tensor("a", 3), tensor("b", 1)))
    assert [*outcome.failures] == [1]
    assert (data_of(outcome.values[0]), data_of(outcome.values[2])) == ([2, 3], [4])


@pytest.mark.parametrize(
    ("sink", "fields", "said"),
    [
        (Sink("out"), {}, "no mode 'enrich'.*choose 'result'"),
        (Sink("out", "result", carry={"id": "id"}), {}, "carries no fields"),
        (Sink("out", "result"), {"features": {"a": "x.y"}}, "path x.y: expected the name of an input"),
        (Sink("out", "result"), {"features": {"a": "x[0]"}}, "expected the name of an input"),
        (Sink("out", "result", subjects="record"), {}, "no option 'subjects'"),
    ],
)
def test_what_the_protocol_does_not_have_is_refused(sink: Sink, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        check(Format("oip"), sink, **fields)
    check(Format("oip"), Sink("out", "result"), features={"a": "x", "b": "$headers.h"})
    with pytest.raises(InvalidValueError, match="no option 'schema'"):
        check(Format("oip", schema="x"), Sink("out", "result"))
