"""Models of every format in one worker: deployed and requested in every way, equal to their libraries' predictions bit
for bit."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from click.testing import CliRunner
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from inferd import SyncClient
from inferd.daemon.cli import main
from inferd.schemas.requests import Failure, Prediction
from inferd.streams.inference import manifest_of
from tests.fixtures.format_models import NAMES, FormatModel, format_model
from tests.fixtures.http_client import Answer, ask
from tests.fixtures.workers import Cluster, Worker, until

pytestmark = pytest.mark.timeout(900)
Outputs = dict[str, Any]
Inferd = Callable[..., str]
WITHIN_S = 300.0
"""Libraries take seconds to import, and far longer on a busy machine."""
BY_COMMAND, OVER_HTTP = "columns", "forest"
ONE_BY_ONE = {"pipeline", "columns"}
"""Models with dense linear algebra, whose rows are scored one by one."""
JSON = {"Content_Type": "application/json"}
FILES = ("csv", "ndjson", "parquet")


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    made = Cluster(kafka, f"formats-{uuid.uuid4().hex[:8]}")
    made.create_topics()
    return made


@pytest.fixture(scope="module")
def inferd(place: Cluster) -> Inferd:
    """The standard output of a command, which must succeed."""

    def run(*arguments: object) -> str:
        environment = {"INFERD_BROKER": place.bootstrap, "INFERD_NAMESPACE": place.namespace}
        done = CliRunner().invoke(main, [str(each) for each in arguments], env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture(scope="module")
def client(place: Cluster, worker: Worker) -> Iterator[SyncClient]:
    with SyncClient(place.bootstrap, namespace=place.namespace) as connected:
        yield connected


@pytest.fixture(scope="module")
def worker(place: Cluster, inferd: Inferd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that serves all models: one deployed by the command, one over HTTP, and the others by the client."""
    directory = tmp_path_factory.mktemp("worker")
    path = directory / f"model{format_model(BY_COMMAND).suffix}"
    path.write_bytes(format_model(BY_COMMAND).content)
    inferd("models", "deploy", path, "--name", BY_COMMAND)
    with SyncClient(place.bootstrap, namespace=place.namespace) as connected:
        for name in set(NAMES) - {BY_COMMAND, OVER_HTTP}:
            content = format_model(name).content
            connected.deploy_model(content, manifest_of(content, name, 1))
    # The worker tests all models when it starts: one process per format, which imports its library once.
    started = Worker(place.bootstrap, place.namespace, directory, "w1", http_timeout_s=WITHIN_S)
    try:
        started.wait_ready(WITHIN_S)
        content, octets = format_model(OVER_HTTP).content, "application/octet-stream"
        assert ask(started, "PUT", f"/models/{OVER_HTTP}", content, Content_Type=octets).status == 201
        for name in NAMES:
            until(partial(_serves, started, name), WITHIN_S, f"{name} serves")
        yield started
    finally:
        started.kill()


def _serves(worker: Worker, name: str) -> bool:
    status, model = worker.get(f"/models/{name}:1")
    overview = model["overview"] if status == 200 else {}
    assert overview.get("state") != "failed", overview
    return overview.get("state") == "ready"


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, worker: Worker) -> FormatModel:
    return format_model(request.param)


def columns(lines: list[dict[str, Any]], outputs: list[str]) -> Outputs:
    """The values of rows that were printed or written one a line, by output."""
    assert [line["row"] for line in lines] == list(range(len(lines)))
    return {output: [line.get(output) for line in lines] for output in outputs}


# ------------------------------------------------------------------------------------------------------ equal results


def test_records_on_kafka(place: Cluster, worker: Worker) -> None:
    """In both encodings: a request of all rows, and one of a single row, by name and by position."""
    producer = place.producer()
    asked: dict[bytes, Outputs] = {}
    encoders: dict[str, Callable[[Any], Any]] = {"json": json.dumps, "msgpack": msgpack.packb}
    for name in NAMES:
        model = format_model(name)
        for encoding, encode in encoders.items():
            for how, data in (("rows", model.rows), ("row", list(model.rows[-1].values()))):
                key = f"{name}.{encoding}.{how}"
                body = {"id": key, "model_id": name, "input_data": data, "outputs": list(model.expected)}
                headers: list[tuple[str, str | bytes | None]] = [("content-type", f"application/{encoding}")]
                producer.produce(place.topics.name("requests"), encode(body), key, headers=headers)
                rows = model.expected if how == "rows" else {o: values[-1] for o, values in model.expected.items()}
                asked[key.encode()] = rows
    assert producer.flush(60) == 0

    def answered(records: list[Any]) -> bool:
        return asked.keys() <= {record.key() for record in records}

    results: dict[bytes, Any] = {}
    for record in place.read("results", answered, WITHIN_S):
        is_json = dict(record.headers())["content-type"] == b"application/json"
        results[record.key()] = json.loads(record.value()) if is_json else msgpack.unpackb(record.value())
    for asked_key, expected in asked.items():
        result = results[asked_key]
        assert {output: by_name(result).get(output) for output in expected} == expected, result


def by_name(result: Outputs) -> Outputs:
    """The fields of a result, including the model's own outputs."""
    return {**result, **result.get("outputs", {})}


@pytest.mark.parametrize("binary", [True, False])
def test_open_inference_protocol(worker: Worker, model: FormatModel, binary: bool) -> None:
    """A public client: a tensor for each feature, in both encodings. In JSON it can send no missing value."""
    places = [place for place, row in enumerate(model.rows) if binary or None not in row.values()]
    with InferenceServerClient(worker.url.removeprefix("http://"), network_timeout=WITHIN_S) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model.name, "1")
        metadata = client.get_model_metadata(model.name)
        assert (metadata["name"], metadata["versions"]) == (model.name, ["1"])
        inputs = [
            protocol_input(each, [model.rows[place][each["name"]] for place in places], binary)
            for each in metadata["inputs"]
        ]
        asked = [InferRequestedOutput(name, binary_data=binary) for name in model.expected]
        result = client.infer(model.name, inputs, outputs=asked, headers={"content-type": "application/json"})
    for name, expected in model.expected.items():
        found = [item.decode() if isinstance(item, bytes) else item for item in result.as_numpy(name).tolist()]
        assert found == [expected[place] for place in places], name


def test_the_rest_of_the_open_inference_protocol(worker: Worker, model: FormatModel) -> None:
    """Everything else that the public client can ask for: the server, the repository, compression, ids and errors."""
    json_type = {"content-type": "application/json"}  # the client adds to the headers that it is given
    with InferenceServerClient(worker.url.removeprefix("http://"), network_timeout=WITHIN_S) as client:
        server = client.get_server_metadata()
        assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("inferd", True)
        index = client.get_model_repository_index(headers=dict(json_type))
        assert {"name": model.name, "version": "1", "state": "READY"} in index
        client.load_model(model.name, headers=dict(json_type))
        with pytest.raises(InferenceServerException, match="by themselves"):
            client.unload_model(model.name, headers=dict(json_type))
        metadata = client.get_model_metadata(model.name, "1")
        rows = model.rows[:1]
        inputs = [protocol_input(each, [row[each["name"]] for row in rows], True) for each in metadata["inputs"]]
        for coding in (None, "gzip", "deflate"):
            result = client.infer(
                model.name,
                inputs,
                model_version="1",
                request_id=f"q-{coding}",
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
                parameters={"own": "ignored"},
                headers=dict(json_type),
            )
            (output,) = metadata["outputs"]
            said = result.get_response()
            assert (said["id"], said["model_name"], said["model_version"]) == (f"q-{coding}", model.name, "1")
            found = result.as_numpy("prediction").tolist()
            assert [item.decode() if isinstance(item, bytes) else item for item in found] == model.expected[
                "prediction"
            ][:1]
            assert said["outputs"][0]["datatype"] == output["datatype"]
        with pytest.raises(InferenceServerException, match="version_not_found"):
            client.infer(model.name, inputs, model_version="2", headers=dict(json_type))
        with pytest.raises(InferenceServerException, match=r"schema_mismatch|invalid_value"):
            client.infer(model.name, inputs[1:], headers=dict(json_type))


@pytest.mark.parametrize("binary", [True, False])
def test_open_inference_protocol_on_kafka(place: Cluster, worker: Worker, binary: bool) -> None:
    """The same client, which writes and reads values of records."""
    producer = place.producer()
    expected: dict[bytes, Outputs] = {}
    for name in NAMES:
        model, key = format_model(name), f"{name}.oip.{binary}"
        places = [index for index, row in enumerate(model.rows) if binary or None not in row.values()]
        described = worker.get(f"/v2/models/{name}")[1]["inputs"]
        inputs = [
            protocol_input(each, [model.rows[index][each["name"]] for index in places], binary) for each in described
        ]
        asked = [InferRequestedOutput(output, binary_data=binary) for output in model.expected]
        body, length = InferenceServerClient.generate_request_body(inputs, outputs=asked, request_id=key)
        headers: list[tuple[str, str | bytes | None]] = [
            ("content-type", "application/vnd.oip.v2+json"), ("mlserver-model", name), ("mlserver-version", "1"),
        ]  # fmt: skip
        headers += [] if length is None else [("Inference-Header-Content-Length", str(length))]
        producer.produce(place.topics.name("requests"), body, key, headers=headers)
        expected[key.encode()] = {o: [values[index] for index in places] for o, values in model.expected.items()}
    assert producer.flush(60) == 0
    answers = {
        record.key(): record
        for record in place.read("results", lambda all_: expected.keys() <= {each.key() for each in all_}, WITHIN_S)
    }
    for asked_key, outputs in expected.items():
        record = answers[asked_key]
        described = dict(record.headers())
        assert described["content-type"] == b"application/vnd.oip.v2+json"
        length = described.get("inference-header-content-length")
        result = InferResult.from_response_body(record.value(), header_length=None if length is None else int(length))
        assert (result.get_response()["id"], (length is not None)) == (asked_key.decode(), binary)
        for output, values in outputs.items():
            found = [item.decode() if isinstance(item, bytes) else item for item in result.as_numpy(output).tolist()]
            assert found == values, (asked_key, output)


def protocol_input(metadata: dict[str, Any], values: list[Any], binary: bool) -> InferInput:
    """A tensor of one feature; a missing value is NaN."""
    made = InferInput(metadata["name"], [len(values)], metadata["datatype"])
    dtype = triton_to_np_dtype(metadata["datatype"])
    array = np.array([math.nan if value is None and dtype is not np.object_ else value for value in values], dtype)
    return made.set_data_from_numpy(array, binary_data=binary)


def test_http(worker: Worker, model: FormatModel) -> None:
    outputs = list(model.expected)
    answer = http(worker, model.name, {"input_data": model.rows, "outputs": outputs})
    assert {output: by_name(answer.json())[output] for output in outputs} == model.expected, answer.body
    body = msgpack.packb({"input_data": model.rows[0], "outputs": outputs})
    packed = ask(worker, "POST", f"/predict/{model.name}", body, Content_Type="application/msgpack")
    said = by_name(msgpack.unpackb(packed.body))
    assert {output: [said[output]] for output in outputs} == {o: v[:1] for o, v in model.expected.items()}


def http(worker: Worker, name: str, body: dict[str, Any], query: str = "") -> Answer:
    return ask(worker, "POST", f"/predict/{name}{query}", json.dumps(body).encode(), **JSON)


def test_the_client(client: SyncClient, model: FormatModel) -> None:
    """Rows by name, a data frame, and rows one by one; numbers travel as a tensor."""
    outputs: Any = list(model.expected)
    numbers = model.frame.select_dtypes("number").shape == model.frame.shape
    for given in (model.rows, model.frame, *([model.frame.to_numpy(float)] if numbers else [])):
        assert dict(client.predict(model.name, given, outputs=outputs, timeout_s=WITHIN_S).outputs) == model.expected
    many = list(client.predict_many(model.name, model.rows, outputs=outputs, timeout_s=WITHIN_S))
    assert columns([{"row": row, **getattr(each, "outputs", {})} for row, each in enumerate(many)], outputs) == (
        model.expected
    )


@pytest.mark.parametrize("file", FILES)
def test_files_by_command(inferd: Inferd, model: FormatModel, tmp_path: Path, file: str) -> None:
    """`inferd predict` and `inferd jobs`, with a file of each kind."""
    path, written = write(model, tmp_path / f"rows.{file}"), tmp_path / "out.ndjson"
    outputs = [output for output in model.expected if output != "raw"]
    expected = {output: model.expected[output] for output in outputs}
    asked = ("--outputs", ",".join(outputs))
    printed = inferd("predict", model.name, path, *asked, "--timeout-s", WITHIN_S, "--output", "json")
    assert columns([json.loads(line) for line in printed.splitlines()], outputs) == expected
    job = inferd("jobs", "submit", path, "--model", model.name, *asked, "--watch").strip()
    inferd("jobs", "results", job, "-o", written)
    assert columns([json.loads(line) for line in written.read_text().splitlines()], outputs) == expected


def write(model: FormatModel, path: Path) -> Path:
    if path.suffix == ".parquet":
        model.frame.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        model.frame.to_csv(path, index=False)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in model.rows))
    return path


def test_commands_show_features_and_classes(inferd: Inferd, model: FormatModel) -> None:
    shown = inferd("models", "show", model.name)
    assert all(name in shown for name in model.frame.columns)
    if model.suffix != ".ubj":
        assert all(label in shown for label in set(model.expected["prediction"]))


def test_batching_shows(inferd: Inferd, worker: Worker) -> None:
    """The facts in the record of a deploy, and in what the worker reports of each version over HTTP and in its
    status."""
    assert "rows are scored one by one" in inferd("models", "show", BY_COMMAND)
    assert worker.get(f"/models/{BY_COMMAND}:1")[1]["manifest"]["batching"] is False
    batching = {name: worker.get(f"/models/{name}:1")[1]["overview"]["batching"] for name in NAMES}
    assert batching == {name: name not in ONE_BY_ONE for name in NAMES}
    assert {each["model_id"]: each["batching"] for each in worker.get("/status")[1]["models"]} == batching


def test_commands_show_own_outputs(inferd: Inferd) -> None:
    assert re.search(r"own outputs +label\n", inferd("models", "show", OVER_HTTP))


# ----------------------------------------------------------------------------------------------------------- bad rows


def rows_with_bad_ones(model: FormatModel) -> tuple[list[Any], dict[int, Any]]:
    """The bad rows, with a good one before and after each; and the bad rows by number."""
    good, bad = model.rows[0], model.bad_rows
    rows = [good, *(row for each in bad for row in (each.row, good))]
    return rows, {2 * place + 1: each for place, each in enumerate(bad)}


def check_errors(errors: list[tuple[int, str, str]], bad: dict[int, Any]) -> None:
    """`errors`: row, code and message."""
    assert [row for row, _, _ in errors] == list(bad)
    for row, code, message in errors:
        assert code == bad[row].code, message
        assert all(part in message for part in (f"row {row}", *bad[row].said)), message


def test_bad_rows_fail_alone_in_a_request(worker: Worker, model: FormatModel) -> None:
    """All rows of a request are by name, or all by position."""
    rows, bad = rows_with_bad_ones(model)
    for row, each in bad.items():
        if isinstance(each.row, list):
            continue
        answer = http(worker, model.name, {"input_data": [rows[0], each.row]})
        assert (answer.status, answer.code) == (422, each.code), answer.body
        assert all(part in answer.json()["error"]["message"] for part in ("row 1", *each.said)), (row, answer.body)
    unknown = http(worker, model.name, {"input_data": rows[:1], "outputs": ["nope"]})
    assert (unknown.status, unknown.code) == (422, "invalid_value")
    assert all(each in unknown.json()["error"]["message"] for each in ("'nope'", *model.expected)), unknown.body
    answer = http(worker, model.name, {"input_data": rows}, "?row_errors=true")
    said = answer.json()
    assert answer.status == 200, answer.body
    check_errors([(error["row"], error["code"], error["message"]) for error in said["errors"]], bad)
    good = model.expected["prediction"][0]
    assert said["prediction"] == [None if row in bad else good for row in range(len(rows))]


def test_bad_rows_fail_alone_in_a_job(client: SyncClient, model: FormatModel) -> None:
    rows, bad = rows_with_bad_ones(model)
    job = client.submit_job(model.name, rows)
    status = list(client.watch_job(job))[-1]
    assert (status.status, status.failed) == ("completed_with_errors", len(bad))
    results = list(client.job_results(job))
    good = model.expected["prediction"][0]
    assert [each.outputs.get("prediction") for each in results if each.row not in bad] == [good] * (len(bad) + 1)
    check_errors([(each.row, each.error.code, each.error.message) for each in results if each.error], bad)


def test_a_bad_record_does_not_affect_others(client: SyncClient, model: FormatModel) -> None:
    rows, bad = rows_with_bad_ones(model)
    results = list(client.predict_many(model.name, rows, timeout_s=WITHIN_S))
    assert len(results) == len(rows)
    for row, result in enumerate(results):
        if row in bad:
            assert isinstance(result, Failure), row
            assert (result.code, all(part in result.message for part in bad[row].said)) == (bad[row].code, True), result
        else:
            assert isinstance(result, Prediction), result
            assert result.outputs["prediction"] == model.expected["prediction"][0]
