"""Requests in other protocols among others in a micro-batch: each is answered in kind."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from inferd.schemas.errors import InternalError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.protocols import Exchanges
from inferd.streams.inference.needed_versions import NeededVersions
from inferd.streams.inference.outcome import Outcome
from inferd.streams.inference.scoring import UNDECODABLE, Scorer
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, catalog_of, finish, score

OIP, EVENT, JSON = (
    ("content-type", f"application/{name}".encode()) for name in ("vnd.oip.v2+json", "cloudevents+json", "json")
)
REQUEST = {"model_name": "sum", "id": "of mine", "inputs": []}
TOPIC = "inferd.default.requests"


@pytest.fixture
def scorer() -> Scorer:
    return scorer_of(DEFAULT_LIMITS)


def scorer_of(limits: Limits) -> Scorer:
    exchanges = Exchanges(limits, "the group", TOPIC)
    return Scorer(catalog_of(sum_model(1), sum_model(2)), limits, exchanges=exchanges)


def tensor(name: str, *values: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": "FP64", "data": list(values), **more}


def oip(*headers: tuple[str, bytes], key: bytes | None = None, **fields: Any) -> Fetched:
    body = {**REQUEST, "inputs": [tensor("a", 1, 2), tensor("b", 3, 0.5)], **fields}
    body = {name: value for name, value in body.items() if value is not None}
    return Fetched(json.dumps(body).encode(), 7, key, (OIP, *headers), 1_767_322_800_123)


def alone(scorer: Scorer, record: Fetched) -> tuple[Any, dict[str, bytes], Outcome]:
    """The answer to a record, its headers, and the outcome."""
    outcome = score(scorer, [record], partition=3)
    return json.loads(outcome.values[0]), dict(outcome.replies[0].headers), outcome


# ------------------------------------------------------------------------------------------- Open Inference Protocol


def test_a_request_of_the_open_inference_protocol_is_answered_in_kind(scorer: Scorer) -> None:
    said, headers, outcome = alone(scorer, oip())
    assert said == {
        "model_name": "sum", "model_version": "2", "id": "of mine",
        "parameters": {"digest": sum_model(2).manifest.sha256},
        "outputs": [{"name": "prediction", "shape": [2], "datatype": "FP64", "data": [4.0, 2.5]}],
    }  # fmt: skip
    assert headers == {"content-type": b"application/vnd.oip.v2+json"}
    assert (outcome.rows, outcome.by_model) == (2, {("sum", 2): (1, 2)})


@pytest.mark.parametrize(
    ("fields", "headers", "version"),
    [
        ({"model_version": "1"}, {}, "1"),
        ({"model_version": 1}, {}, "1"),
        ({"model_name": "sum:1"}, {}, "1"),
        ({"model_name": None}, {"mlserver-model": b"sum"}, "2"),
        ({"model_name": None}, {"MLServer-Model": b"sum", "mlserver-version": b"1"}, "1"),
        ({"model_version": "2"}, {"mlserver-model": b"other", "mlserver-version": b"1"}, "2"),
    ],
)
def test_the_model_of_a_record(scorer: Scorer, fields: Any, headers: dict[str, bytes], version: str) -> None:
    said, _, _ = alone(scorer, oip(*headers.items(), **fields))
    assert said["model_version"] == version


BAD: dict[str, tuple[dict[str, Any], tuple[tuple[str, bytes], ...], str]] = {
    "no model": ({"model_name": None}, (), "malformed: request: no model"),
    "two versions": ({"model_name": "sum:1", "model_version": "2"}, (), "invalid_value: sum:1 names a version already"),
    "an unknown model": ({"model_name": "none"}, (), "model_not_found: "),
    "an unknown version": ({"model_version": "9"}, (), "version_not_found: "),
    "an unknown alias": ({"model_version": "live"}, (), "version_not_found: "),
    "no name": ({"model_name": "a b"}, (), "invalid_id: "),
    "a tensor too few": ({"inputs": [tensor("a", 1)]}, (), "schema_mismatch: "),
    "a tensor of another type": ({"inputs": [tensor("a", "x"), tensor("b", 1)]}, (), "invalid_value: tensor 'a'"),
    "an unknown output": ({"outputs": [{"name": "nope"}]}, (), "invalid_value: "),
    "row errors": ({}, (("row-errors", b"true"),), "invalid_header: header row-errors"),
    "a deadline that passed": ({}, (("deadline", b"1"),), "deadline_exceeded: "),
    "a bad deadline": ({}, (("deadline", b"soon"),), "invalid_header: header deadline"),
    "another topic": ({}, (("reply-to", b"other"),), "reply_to_refused: "),
    "two models": ({"model_name": None}, (("mlserver-model", b"a"), ("mlserver-model", b"b")), "invalid_header: "),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_are_in_kind_and_have_the_id(scorer: Scorer, name: str) -> None:
    fields, headers, error = BAD[name]
    outcome = score(scorer, [oip(*headers, **fields)], now_ms=2)
    said = json.loads(outcome.values[0])
    assert (said["id"], said["error"][: len(error)], set(said)) == ("of mine", error, {"id", "error"})
    assert outcome.failures[0].code == error.partition(":")[0]
    assert outcome.headers[0].reply_to is None


def test_a_length_of_the_json_that_is_none(scorer: Scorer) -> None:
    for length in (b"-1", b"x", b"9" * 13):
        said, _, _ = alone(scorer, oip(("inference-header-content-length", length)))
        assert said["error"].startswith("invalid_header: header inference-header-content-length"), said


@pytest.mark.parametrize("value", [None, b"", b"\xc1", b"[]", b"{}", b'{"inputs": 1}', b'{"id": 1}'])
def test_values_that_are_no_request_are_undecodable(scorer: Scorer, value: bytes | None) -> None:
    said, _, outcome = alone(scorer, Fetched(value, 0, None, (OIP,)))
    assert said["error"].startswith("malformed: ")
    assert isinstance(outcome.failures[0], UNDECODABLE)


def triton(binary: bool, **parameters: Any) -> tuple[bytes, int | None]:
    """A request as Triton's client writes it, and the length of its JSON."""
    inputs = []
    for name, values in (("a", [[1.0], [2.0]]), ("b", [[3.0], [0.5]])):
        made = InferInput(name, [2, 1], "FP64")
        inputs.append(made.set_data_from_numpy(np.array(values), binary_data=binary))
    outputs = [InferRequestedOutput("prediction", binary_data=binary)]
    made = InferenceServerClient.generate_request_body(inputs, outputs=outputs, parameters=parameters or None)
    return made[0], made[1]


@pytest.mark.parametrize("binary", [True, False])
def test_records_of_a_public_client(scorer: Scorer, binary: bool) -> None:
    body, length = triton(binary)
    headers = [OIP, ("mlserver-model", b"sum")]
    headers += [] if length is None else [("Inference-Header-Content-Length", b"%d" % length)]
    outcome = score(scorer, [Fetched(body, 0, None, headers)])
    described = dict(outcome.replies[0].headers)
    json_length = described.get("inference-header-content-length")
    assert (json_length is not None) is binary
    given = None if json_length is None else int(json_length)
    result = InferResult.from_response_body(outcome.values[0], header_length=given)
    assert result.as_numpy("prediction").tolist() == [4.0, 2.5]
    assert "Inference-Header-Content-Length" not in dict(outcome.headers[0].propagated)


def test_records_of_all_kinds_keep_their_order(scorer: Scorer) -> None:
    plain = {"id": "r", "model_id": "sum", "input_data": [1, 2]}
    records = [
        Fetched(msgpack.packb(plain), 0), oip(), Fetched(json.dumps(plain).encode(), 2, None, (JSON,)), oip(id=None),
        *[Fetched(msgpack.packb({**plain, "input_data": [n, n]}), 4 + n) for n in range(20)],
        Fetched(b"{", 30, None, (OIP,)),
    ]  # fmt: skip
    outcome = score(scorer, records)
    assert sorted(outcome.replies) == [1, 3, 24]
    assert [json.loads(outcome.values[index])["outputs"][0]["data"] for index in (1, 3)] == [[4.0, 2.5]] * 2
    assert "id" not in json.loads(outcome.values[3])
    assert [msgpack.unpackb(value)["prediction"] for value in outcome.values[4:24]] == [2.0 * n for n in range(20)]
    joined = outcome + outcome
    assert sorted(joined.replies) == [1, 3, 24, 26, 28, 49]


def test_an_answer_that_is_too_large_is_an_error_in_kind() -> None:
    scorer = scorer_of(Limits(result_bytes_max=260))
    few, _, _ = alone(scorer, oip())
    assert "outputs" in few
    many = [tensor(name, *[0.1] * 20) for name in "ab"]
    said, _, outcome = alone(scorer, oip(inputs=many))
    assert said["error"].startswith("too_large: the result has "), said
    assert outcome.asked[0] == "sum"


def test_another_error_can_replace_an_answer(scorer: Scorer) -> None:
    _, _, outcome = alone(scorer, oip())
    failed = outcome.replies[0].failed(TooLargeError("no room"))
    assert json.loads(failed.value) == {"error": "too_large: no room", "id": "of mine"}


def test_records_that_cannot_be_scored_at_all_are_answered_in_kind(scorer: Scorer) -> None:
    plain = Fetched(b'{"model_id": "sum"}', 1, None, (JSON, ("correlation-id", b"c")))
    outcome = scorer.reject([(0, [oip(), plain, Fetched(b"x")])], InternalError("no way"))
    assert json.loads(outcome.values[0]) == {"error": "internal: no way", "id": "of mine"}
    assert json.loads(outcome.values[1])["error"]["code"] == "internal"
    assert outcome.headers[1].propagated == (("correlation-id", b"c"),)
    assert msgpack.unpackb(outcome.values[2])["error"]["code"] == "internal"


def test_the_version_that_a_record_needs() -> None:
    catalog = catalog_of(sum_model(1), sum_model(2))
    needed = NeededVersions(catalog, Exchanges(DEFAULT_LIMITS), 0)
    assert needed.of(0, oip(model_version="1")) is catalog.version("sum", 1)
    assert needed.of(0, event(binary=True)) is catalog.version("sum", 2)
    assert needed.of(0, oip(model_name=None)) is None


def test_a_fault_of_the_model_is_answered_in_kind() -> None:
    class Fails(SumRuntime):
        def predict(self, *_arguments: Any) -> Any:
            raise ZeroDivisionError

    scorer = Scorer(catalog_of(sum_model(runtime=Fails())), DEFAULT_LIMITS)
    said, _, _ = alone(scorer, oip())
    assert said["error"].startswith("internal: ZeroDivisionError")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from([OIP, EVENT]))
def test_any_value_has_an_answer_in_kind(value: bytes, content_type: tuple[str, bytes]) -> None:
    said, headers, _ = alone(scorer_of(DEFAULT_LIMITS), Fetched(value, 0, None, (content_type,)))
    assert headers["content-type"] == content_type[1]
    assert "error" in (said if content_type is OIP else said["data"])


# -------------------------------------------------------------------------------------------------------- CloudEvents

ATTRIBUTES = {"type": "order.created", "source": "/shop", "id": "e-1"}
DATA = {"id": "r-1", "model_id": "sum", "input_data": [1.0, 2.0]}


def event(*, binary: bool, data: Any = None, **attributes: Any) -> Fetched:
    """A record as the package `cloudevents` writes it."""
    given = {**ATTRIBUTES, "datacontenttype": "application/json", **attributes}
    made = CloudEvent(attributes=given, data=DATA if data is None else data)
    message = (to_binary if binary else to_structured)(made, JSONFormat())
    return Fetched(message.value, 7, None, tuple(message.headers.items()), 1_767_322_800_123)


def read(outcome: Outcome, index: int = 0) -> CloudEvent:
    """The event of a result, as the package reads it."""
    carried = [header for header in outcome.headers[index].propagated if header[1] is not None]
    headers: Any = dict([*outcome.replies[index].headers, *carried])
    message = KafkaMessage(headers, None, outcome.values[index])
    binary = "ce_specversion" in headers
    made = (from_binary if binary else from_structured)(message, JSONFormat(), CloudEvent)
    assert isinstance(made, CloudEvent)
    return made


def content(made: CloudEvent) -> Any:
    data = made.get_data()
    return msgpack.unpackb(data) if isinstance(data, bytes) else json.loads(data) if isinstance(data, str) else data


both_modes = pytest.mark.parametrize("binary", [True, False], ids=["binary", "structured"])


@both_modes
def test_an_event_is_answered_by_an_event_in_the_same_mode(scorer: Scorer, binary: bool) -> None:
    outcome = score(scorer, [event(binary=binary)], partition=3)
    made = read(outcome)
    assert made.get_attributes() | {"time": made.get_time().isoformat()} == {  # type: ignore[union-attr]
        "specversion": "1.0", "id": f"{TOPIC}-3-7", "source": "the%20group", "type": "ai.inferd.prediction.v1",
        "subject": "sum", "time": "2026-01-02T03:00:00.123000+00:00", "datacontenttype": "application/json",
        "relatedid": "e-1",
    }  # fmt: skip
    plain = Fetched(json.dumps(DATA).encode(), 7, None, (JSON,))
    assert content(made) == json.loads(score(scorer, [plain]).values[0])
    assert dict(outcome.replies[0].headers)["content-type"] == (JSON if binary else EVENT)[1]
    again = score(scorer, [event(binary=binary)], partition=3, now_ms=10**12)
    assert (again.values, again.replies[0].headers) == (outcome.values, outcome.replies[0].headers)


@both_modes
def test_data_in_messagepack(scorer: Scorer, binary: bool) -> None:
    record = event(binary=binary, data=msgpack.packb(DATA), datacontenttype="application/msgpack")
    outcome = score(scorer, [record])
    made = read(outcome)
    assert (made.get_datacontenttype(), content(made)["prediction"]) == ("application/msgpack", 3.0)
    if not binary:
        assert "data_base64" in json.loads(outcome.values[0])


@both_modes
def test_data_of_the_open_inference_protocol(scorer: Scorer, binary: bool) -> None:
    asked = {**REQUEST, "inputs": [tensor("a", 1, 2), tensor("b", 3, 4)], "parameters": {"binary_data_output": True}}
    body = json.dumps(asked)
    record = event(binary=binary, data=body if binary else asked, datacontenttype="application/vnd.oip.v2+json")
    outcome = score(scorer, [record])
    described = dict(outcome.replies[0].headers)
    length = described.get("inference-header-content-length")
    assert (length is not None) is binary
    said = json.loads(outcome.values[0][: int(length)]) if length is not None else content(read(outcome))
    assert (said["model_name"], said["id"]) == ("sum", "of mine")


@both_modes
def test_an_error_is_an_event(scorer: Scorer, binary: bool) -> None:
    made = read(score(scorer, [event(binary=binary, data={**DATA, "model_id": "none@live"})]))
    assert (made.get_type(), made.get_subject()) == ("ai.inferd.error.v1", "none")
    assert made.get_extension("relatedid") == "e-1"
    assert content(made)["error"]["code"] == "model_not_found"


@both_modes
def test_extensions_of_the_request_are_those_of_the_result(scorer: Scorer, binary: bool) -> None:
    for data in (DATA, {**DATA, "model_id": "none"}):
        record = event(
            binary=binary, data=data, traceparent="00-ab", myextension="ä", dataref="s3://x", dataschema="/s"
        )
        made = read(score(scorer, [record]))
        found = {
            name: made.get_attributes().get(name) for name in ("traceparent", "myextension", "dataref", "dataschema")
        }
        assert found == {"traceparent": "00-ab", "myextension": "ä", "dataref": None, "dataschema": None}


@pytest.mark.parametrize("change", [{"specversion": None}, {"id": None}, {"specversion": "0.3"}, {"source": ""}])
@both_modes
def test_an_invalid_event_is_undecodable_and_answered_by_an_event(
    scorer: Scorer, binary: bool, change: dict[str, Any]
) -> None:
    record = event(binary=binary)
    if binary:
        headers = dict(record.headers) | {f"ce_{name}": value for name, value in change.items()}
        record.headers = [(name, v.encode() if isinstance(v, str) else v) for name, v in headers.items()]
    else:
        record.value = json.dumps({**json.loads(record.value or b""), **change}).encode()
    outcome = score(scorer, [record], partition=3)
    assert isinstance(outcome.failures[0], UNDECODABLE)
    made = read(outcome)
    assert (made.get_type(), made.get_id()) == ("ai.inferd.error.v1", f"{TOPIC}-3-7")
    assert content(made)["error"]["code"] == outcome.failures[0].code
    assert "CloudEvent" in content(made)["error"]["message"]


def test_an_id_alone_is_only_related(scorer: Scorer) -> None:
    outcome = score(scorer, [Fetched(json.dumps(DATA).encode(), 0, None, (JSON, ("ce_id", b"e-1")))])
    assert outcome.replies == {}
    assert outcome.headers[0].propagated == (("ce_relatedid", b"e-1"),)


STRUCTURED = {**ATTRIBUTES, "specversion": "1.0"}
BAD_EVENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "data that is no request": ({"data": {"a": 1}}, "malformed", "request"),
    "data that is text": ({"data": json.dumps(DATA)}, "malformed", "request"),
    "no data": ({}, "malformed", "no value"),
    "an unknown type": ({"data": DATA, "datacontenttype": "text/csv"}, "unsupported_content_type", "text/csv"),
    "an event in an event": (
        {"data": DATA, "datacontenttype": "application/cloudevents+json"}, "unsupported_content_type", "again",
    ),
    "MessagePack as JSON": ({"data": DATA, "datacontenttype": "application/msgpack"}, "malformed", "data_base64"),
    "no MessagePack": ({"data_base64": base64.b64encode(b"\xc1").decode()}, "malformed", "request"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_data_that_is_no_request_is_rejected(scorer: Scorer, name: str) -> None:
    more, code, said = BAD_EVENTS[name]
    outcome = score(scorer, [Fetched(json.dumps({**STRUCTURED, **more}).encode(), 0, None, (EVENT,))])
    error = content(read(outcome))["error"]
    assert (error["code"], said in error["message"]) == (code, True), error
    assert read(outcome).get_extension("relatedid") == "e-1"


def test_a_batch_of_events_is_refused_with_advice(scorer: Scorer) -> None:
    batch = Fetched(b"[]", 0, None, (("content-type", b"application/cloudevents-batch+json; charset=UTF-8"),))
    outcome = score(scorer, [batch])
    error = msgpack.unpackb(outcome.values[0])["error"]
    assert error["code"] == "unsupported_content_type"
    assert "produce a record for each event" in error["message"]


def test_row_errors_of_an_event(scorer: Scorer) -> None:
    record = event(binary=True, data={**DATA, "input_data": [[1.0, 2.0], ["x", 1.0]]})
    record.headers = [*record.headers, ("row-errors", b"true")]
    said = content(read(score(scorer, [record])))
    assert (said["prediction"], [each["row"] for each in said["errors"]]) == ([3.0, None], [1])


def test_events_share_no_state_between_records(scorer: Scorer) -> None:
    records = [event(binary=bool(n % 2), id=f"e-{n}") for n in range(10)]
    for n, record in enumerate(records):
        record.offset = n
    outcome = finish(scorer.prepare([(1, records[:5]), (2, records[5:])], 0))
    made = [read(outcome, n) for n in range(10)]
    assert [each.get_id() for each in made] == [f"{TOPIC}-{1 + n // 5}-{n}" for n in range(10)]
    assert [each.get_extension("relatedid") for each in made] == [f"e-{n}" for n in range(10)]
    assert msgspec.json.decode(outcome.values[0])["relatedid"] == "e-0"
