"""`/v2…`: paths, health, metadata, and errors in the shape of the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.tokens import TokensFile
from tests.fixtures.http_client import TOKENS, write_tokens
from tests.unit.daemon.http.fake_http_services import FakeWorker

Client = TestClient[web.Request, web.Application]
OCTETS = {"Content-Type": "application/octet-stream"}
REQUEST = {"id": "their id", "inputs": [{"name": "a", "shape": [2], "datatype": "FP64", "data": [1, 2]}]}


@pytest.mark.parametrize(
    ("path", "model_id"),
    [
        ("churn", "churn"), ("churn%403best", "churn@3best"), ("churn/versions/7", "churn:7"),
        ("churn/versions/champion", "churn@champion"),
    ],
)  # fmt: skip
async def test_inference(client: Client, worker: FakeWorker, path: str, model_id: str) -> None:
    answer = await client.post(f"/v2/models/{path}/infer", json=REQUEST)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert await answer.json() == {
        "model_name": "churn", "model_version": "1", "id": "their id", "parameters": {"digest": "ab" * 32},
        "outputs": [{"name": "prediction", "shape": [2], "datatype": "FP64", "data": [0.25, 0.25]}],
    }  # fmt: skip
    tenant, value, headers = worker.predictions.asked[0]
    request = msgspec.msgpack.decode(value)
    assert (tenant, request["model_id"], request["input_data"]) == ("default", model_id, [{"a": 1.0}, {"a": 2.0}])
    assert headers["content-type"] == b"application/msgpack"
    assert "deadline" in headers


async def test_binary_tensors(client: Client) -> None:
    asked = {
        "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
        "parameters": {"binary_data_output": True},
    }
    text = msgspec.json.encode(asked)
    body = text + np.ones((2, 2), np.float32).tobytes()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = await client.post("/v2/models/churn/infer", data=body, headers=headers | OCTETS)
    assert answer.status == 200, await answer.text()
    length, data = int(answer.headers["Inference-Header-Content-Length"]), await answer.read()
    (output,) = msgspec.json.decode(data[:length])["outputs"]
    assert (output["parameters"], data[length:]) == ({"binary_data_size": 16}, np.full(2, 0.25).tobytes())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/v2/models/other/infer", REQUEST, 404, "model_not_found: tenant default has no model 'other'"),
        ("POST", "/v2/models/churn/infer", {"inputs": 1}, 400, "malformed: "),
        ("POST", "/v2/models/churn:1/versions/2/infer", REQUEST, 422, "invalid_value: churn:1 names a version"),
        ("POST", "/v2/models/churn/versions/a%20b/infer", REQUEST, 400, "invalid_id: "),
        ("GET", "/v2/models/none", None, 404, "model_not_found: "),
        ("GET", "/v2/nothing", None, 404, "not_found: there is no route /v2/nothing"),
        ("DELETE", "/v2/models/churn", None, 405, "method_not_allowed: "),
        ("POST", "/v2/repository/index", {"ready": 1}, 400, "malformed: body: "),
        ("POST", "/v2/repository/models/none/load", {}, 404, "model_not_found: "),
    ],
)
async def test_errors(client: Client, method: str, path: str, body: Any, status: int, error: str) -> None:
    answer = await client.request(method, path, json=body)
    said = await answer.json()
    assert (answer.status, said.keys()) == (status, {"error"})
    assert said["error"].startswith(error)


@pytest.mark.parametrize("length", ["-1", "1.0", "x", "9" * 20, "100000"])
async def test_a_wrong_length_of_the_json_is_rejected(client: Client, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length} | OCTETS
    answer = await client.post("/v2/models/churn/infer", data=b"{}", headers=headers)
    assert answer.status == 400
    assert (await answer.json())["error"].startswith(("invalid_header: ", "malformed: "))


async def test_metadata_and_the_index(client: Client) -> None:
    for _ in range(2):
        put = await client.put("/models/churn", data=b"tree" + bytes([_]), headers=OCTETS)
        assert put.status == 201
    server = await (await client.get("/v2")).json()
    assert (server["name"], server["extensions"]) == ("inferd", ["binary_tensor_data", "model_repository"])
    for path in ("/v2/models/churn", "/v2/models/churn/versions/1"):
        found = await (await client.get(path)).json()
        assert (found["name"], found["versions"], found["platform"]) == ("churn", ["1", "2"], "lightgbm")
        assert [(each["datatype"], each["shape"]) for each in found["inputs"]] == [("FP64", [-1])]
    index = await (await client.post("/v2/repository/index", json={})).json()
    assert [(each["name"], each["version"], each["state"]) for each in index] == [
        ("churn", "1", "LOADING"), ("churn", "2", "LOADING"),
    ]  # fmt: skip
    assert await (await client.post("/v2/repository/index", json={"ready": True})).json() == []
    ready = await client.get("/v2/models/churn/ready")
    assert (ready.status, (await ready.json())["error"]) == (400, "model_not_ready: churn:2 is not read yet")
    unload = await client.post("/v2/repository/models/churn/unload", json={})
    assert (unload.status, "DELETE /models/churn" in (await unload.json())["error"]) == (422, True)


async def test_probes_need_no_token_and_models_do(tmp_path: Path) -> None:
    access = Access(("default", "other"), TokensFile(write_tokens(tmp_path)))
    async with TestClient(TestServer(FakeWorker(tmp_path, access=access).app)) as client:
        assert (await client.get("/v2/health/live")).status == 200
        assert (await client.get("/v2/health/ready")).status in (200, 503)
        answer = await client.post("/v2/models/churn/infer", json=REQUEST)
        assert (answer.status, (await answer.json())["error"].partition(":")[0]) == (401, "unauthorized")
        token = {"Authorization": f"Bearer {TOKENS['other']}"}
        assert (await client.post("/v2/models/churn/infer", json=REQUEST, headers=token)).status == 200
