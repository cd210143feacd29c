"""`POST /predict/{model_id}`: bodies become requests as on Kafka, and results become responses."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from inferd.daemon.http.core.application import AppLimits
from inferd.schemas.errors import ModelNotReadyError
from tests.unit.daemon.http.fake_http_services import FakeWorker

Client = TestClient[web.Request, web.Application]
MSGPACK = {"Content-Type": "application/msgpack"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def worker(tmp_path: Path) -> FakeWorker:
    return FakeWorker(tmp_path, limits=AppLimits(timeout_s=0.2))


async def test_a_prediction(client: Client, worker: FakeWorker) -> None:
    asked_at = time.time()
    answer = await client.post("/predict/churn", json={"input_data": [1, 2]})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    said = await answer.json()
    request_id = said.pop("id")
    assert said == {"model_id": "churn", "version": 1, "digest": "ab" * 32, "prediction": 0.25}
    tenant, value, headers = worker.predictions.asked[0]
    assert (tenant, json.loads(value)) == ("default", {"id": request_id, "model_id": "churn", "input_data": [1, 2]})
    assert headers["content-type"] == b"application/json"
    assert asked_at < int(headers["deadline"]) / 1_000 < time.time() + 0.3


async def test_the_response_has_the_encoding_of_the_body(client: Client) -> None:
    body = msgspec.msgpack.encode({"input_data": [1, 2], "outputs": ["raw", "prediction"], "id": "r1"})
    answer = await client.post("/predict/churn:1", data=body, headers=MSGPACK)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/msgpack")
    said = msgspec.msgpack.decode(await answer.read())
    assert (said["id"], said["raw"], said["prediction"]) == ("r1", 0.25, 0.25)


async def test_a_response_says_which_variant_of_an_alias_scored_it(client: Client) -> None:
    by_alias = await client.post("/predict/churn@best", json={"input_data": [1, 2]})
    assert by_alias.headers["inferd-alias-revision"] == "7"
    assert by_alias.headers["inferd-variant"] == "canary"
    assert "inferd-variant" not in (await client.post("/predict/churn:1", json={"input_data": [1, 2]})).headers
    tensor = {"name": "a", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}
    answer = await client.post("/v2/models/churn/versions/best/infer", json={"inputs": [tensor]})
    assert (answer.status, answer.headers["inferd-variant"]) == (200, "canary")


async def test_an_error_says_which_variant_of_an_alias_it_is_of(client: Client) -> None:
    tensor = {"name": "a", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}
    paths = {
        "/predict/other@best": {"input_data": [1, 2]},
        "/v2/models/other/versions/best/infer": {"inputs": [tensor]},
    }
    for path, body in paths.items():
        answer = await client.post(path, json=body)
        assert answer.status == 404
        assert answer.headers["inferd-alias-revision"] == "7"
        assert answer.headers["inferd-variant"] == "canary"
    answer = await client.post("/predict/other", json={"input_data": [1, 2]})
    assert (answer.status, "inferd-variant" in answer.headers) == (404, False)


async def test_a_request_without_an_id_gets_a_unique_one(client: Client) -> None:
    answers = [await client.post("/predict/churn", json={"input_data": [1, 2]}) for _ in range(3)]
    ids = {(await answer.json())["id"] for answer in answers}
    assert len(ids) == 3
    assert all(uuid.UUID(hex=each).version == 4 for each in ids)


async def test_errors_have_the_correlation_id(client: Client) -> None:
    sent = {"correlation-id": "c-1"}
    answer = await client.post("/predict/other", json={"input_data": [1, 2]}, headers=sent)
    assert (answer.status, answer.headers["correlation-id"]) == (404, "c-1")


@pytest.mark.parametrize("path", ["churn:3", "churn@best", "churn%3A3", "churn%40best"])
async def test_model_ids_may_be_escaped(client: Client, worker: FakeWorker, path: str) -> None:
    assert (await client.post(f"/predict/{path}", json={"input_data": [1, 2]})).status == 200
    assert json.loads(worker.predictions.asked[0][1])["model_id"] in ("churn:3", "churn@best")


async def test_headers_are_propagated_and_the_correlation_id_is_returned(client: Client, worker: FakeWorker) -> None:
    sent = {"correlation-id": "c-1", "ce-id": "e-1", "deadline": "253402300799000", "x-mine": "no"}
    answer = await client.post("/predict/churn", json={"input_data": [1, 2]}, headers=sent)
    assert answer.headers["correlation-id"] == "c-1"
    assert worker.predictions.asked[0][2] == {
        "content-type": b"application/json",
        "deadline": b"253402300799000",
        "correlation-id": b"c-1",
        "ce_id": b"e-1",
    }


async def test_row_errors_are_enabled_by_the_query(client: Client, worker: FakeWorker) -> None:
    assert (await client.post("/predict/churn?row_errors=true", json={"input_data": [[1, 2]]})).status == 200
    assert worker.predictions.asked[0][2]["row-errors"] == b"true"
    answer = await client.post("/predict/churn?row_errors=1", json={"input_data": [[1, 2]]})
    assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_header")


async def test_a_correlation_id_that_http_cannot_return_is_rejected(client: Client, worker: FakeWorker) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(
        b"POST /predict/churn HTTP/1.1\r\nhost: [::1]\r\ncontent-type: application/json\r\ncorrelation-id: \x9f\x86\r\n"
        b'connection: close\r\ncontent-length: 22\r\n\r\n{"input_data": [1, 2]}'
    )
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"header correlation-id: not UTF-8" in answer
    assert not worker.predictions.asked


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("churn", b'{"input_data": [1, 2], "oops": 1}', JSON, 400, "malformed"),
        ("churn", b'{"input_data": [1, 2], "model_id": "other"}', JSON, 400, "malformed"),
        ("churn", b'{"input_data": [1, 2], "input_data": [1, 2]}', JSON, 400, "malformed"),
        ("churn", b'{"input_data": [1, 2], "\\u006fops": 1, "input_data": {"a:b": ":"}}', JSON, 400, "malformed"),
        ("churn", b"\x82\xaainput_data\x91\x01\xaainput_data\x91\x01", MSGPACK, 400, "malformed"),
        ("churn", b"{}", JSON, 400, "malformed"),
        ("churn", b" { } ", JSON, 400, "malformed"),
        ("churn", b"[1]", JSON, 400, "malformed"),
        ("churn", b"", JSON, 400, "malformed"),
        ("churn", b"{", JSON, 400, "malformed"),
        ("churn", b'{"input_data": ' + b"[" * 1_000, JSON, 400, "too_deep"),
        ("churn", b'{"input_data": [1], "id": "../x"}', JSON, 400, "invalid_id"),
        ("churn", b'{"input_data": [1], "outputs": [""]}', JSON, 422, "invalid_value"),
        ("churn", b"\xc1", MSGPACK, 400, "malformed"),
        ("churn", b"\xdf\xff\xff\xff\xff", MSGPACK, 400, "malformed"),
        ("churn", b"\xde\x00", MSGPACK, 400, "malformed"),
        ("other", b'{"input_data": [1, 2]}', JSON, 404, "model_not_found"),
        ("..%2Fx", b'{"input_data": [1, 2]}', JSON, 400, "invalid_id"),
        ("churn:0", b'{"input_data": [1, 2]}', JSON, 400, "invalid_id"),
        ("%00", b'{"input_data": [1, 2]}', JSON, 400, "invalid_id"),
        ("x" * 5_000, b'{"input_data": [1, 2]}', JSON, 400, "invalid_id"),
        ("churn", b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_content_type"),
        ("churn", b"{}", {"Content-Type": "application/json; charset=latin1"}, 415, "unsupported_content_type"),
        ("churn", b'{"input_data": [1, 2]}', {**JSON, "deadline": "soon"}, 400, "invalid_header"),
    ],
)
async def test_invalid_requests_get_typed_errors(
    client: Client, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await client.post(f"/predict/{path}", data=body, headers=headers)
    said = await answer.json()
    assert (answer.status, said["error"]["code"]) == (status, code), said
    assert set(said) == {"error"}
    assert set(said["error"]) == {"code", "message"}
    assert answer.headers["Content-Type"] == "application/json"


async def test_a_body_without_content_type_is_rejected(client: Client) -> None:
    answer = await client.post("/predict/churn", data=b"{}", skip_auto_headers=["Content-Type"])
    assert answer.status == 415


async def test_a_timeout_is_deadline_exceeded(client: Client, worker: FakeWorker) -> None:
    worker.predictions.gate = asyncio.Event()
    answer = await client.post("/predict/churn", json={"input_data": [1, 2]})
    assert (answer.status, (await answer.json())["error"]["code"]) == (504, "deadline_exceeded")


async def test_retryable_errors_have_retry_after(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reject(*_: Any) -> bytes:
        raise ModelNotReadyError("not yet")

    monkeypatch.setattr("tests.unit.daemon.http.fake_http_services.FakePredictions.predict", reject)
    answer = await client.post("/predict/churn", json={"input_data": [1, 2]})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
