"""`/models…`: deploys, aliases and removal over HTTP, and uploads of model files."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient

from inferd.daemon.http.core.application import AppLimits
from inferd.daemon.http.routes.uploads import UPLOADS_MAX
from tests.unit.daemon.http.fake_http_services import FakeWorker

Client = TestClient[web.Request, web.Application]
MODEL = b"tree\nversion=v4\n"
BYTES = {"Content-Type": "application/octet-stream"}
UPLOAD_BYTES_MAX = 3_000_000


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def worker(uploads: Path) -> FakeWorker:
    return FakeWorker(uploads, limits=AppLimits(upload_bytes_max=UPLOAD_BYTES_MAX))


async def code_of(answer: Any) -> tuple[int, str]:
    return answer.status, (await answer.json())["error"]["code"]


async def test_models_are_deployed_and_removed(client: Client) -> None:
    answer = await client.put("/models/m", data=MODEL, headers=BYTES, params={"alias": "best"})
    assert (answer.status, (await answer.json())["version"]) == (201, 1)
    answer = await client.put("/models/m/versions/2", data=MODEL, headers=BYTES)
    assert answer.status == 201
    (model,) = (await (await client.get("/models")).json())["models"]
    assert [version["version"] for version in model["versions"]] == [1, 2]
    assert model["aliases"]["best"]["version"] == 1
    assert (await (await client.get("/models/m@best")).json())["manifest"]["version"] == 1
    answer = await client.put("/models/m/aliases/best", json={"version": 2})
    target = (await answer.json())["target"]
    assert (target["version"], target["revision"], target["changed_by"]) == (2, 2, "http")
    assert (await (await client.get("/models/m/aliases/best")).json())["manifest"]["version"] == 2
    assert await (await client.delete("/models/m/versions/1")).json() == {"removed": ["m/1"]}
    assert await code_of(await client.delete("/models/m:1")) == (404, "version_not_found")
    assert await code_of(await client.delete("/models/m")) == (400, "invalid_id")
    assert await (await client.delete("/models/m", params={"all": "true"})).json() == {"removed": ["m/2"]}
    assert await code_of(await client.get("/models/m")) == (404, "model_not_found")


async def test_a_version_is_removed_after_moving_its_alias(client: Client) -> None:
    for _ in range(2):
        await client.put("/models/m", data=MODEL, headers=BYTES, params={"alias": "champion"})
    assert await code_of(await client.delete("/models/m:2")) == (409, "version_in_use")
    assert await code_of(await client.delete("/models/m:2", params={"move_aliases_to": "x"})) == (422, "invalid_value")
    answer = await client.delete("/models/m/versions/2", params={"move_aliases_to": "1"})
    assert await answer.json() == {"removed": ["m/2"]}
    (model,) = (await (await client.get("/models")).json())["models"]
    assert model["aliases"]["champion"]["version"] == 1


async def test_a_deploy_is_idempotent(client: Client) -> None:
    first = await client.put("/models/m:1", data=MODEL, headers=BYTES)
    again = await client.put("/models/m:1", data=MODEL, headers=BYTES)
    assert (first.status, again.status) == (201, 200)
    assert await first.read() == await again.read()
    assert await code_of(await client.put("/models/m:1", data=MODEL + b"x", headers=BYTES)) == (409, "version_exists")


def form(**parts: Any) -> FormData:
    data = FormData()
    for name, value in parts.items():
        data.add_field(name, value, filename=name if isinstance(value, bytes) else None)
    return data


async def test_a_form_may_contain_a_manifest(client: Client, worker: FakeWorker) -> None:
    answer = await client.put("/models/m:1", data=form(manifest='{"labels": {"team": "x"}}', model=MODEL))
    assert (answer.status, (await answer.json())["labels"]) == (201, {"team": "x"})
    assert worker.models.files[0][1] == MODEL


async def test_a_query_may_contain_a_manifest(client: Client) -> None:
    answer = await client.put("/models/m:1", data=MODEL, headers=BYTES, params={"manifest": '{"labels": {"a": "b"}}'})
    assert (await answer.json())["labels"] == {"a": "b"}


def leave(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("left")


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.exists() else []


async def test_uploaded_files_are_removed(client: Client, worker: FakeWorker, uploads: Path) -> None:
    leave(uploads / "model-of-a-crash")
    big = b"tree" + b"x" * 2_500_000
    answer = await client.put("/models/m:1", data=io.BytesIO(big), headers=BYTES)
    assert answer.status == 201
    assert (await client.put("/models/m:2", data=b"none", headers=BYTES)).status == 400
    assert [content for _, content in worker.models.files] == [big, b"none"]
    assert files_in(uploads) == []


@pytest.mark.parametrize(
    ("path", "data", "headers", "expected"),
    [
        ("/models/m:1", MODEL, {"Content-Type": "application/json"}, (415, "unsupported_content_type")),
        ("/models/m@best", MODEL, BYTES, (400, "invalid_id")),
        ("/models/m%2Fn", MODEL, BYTES, (400, "invalid_id")),
        ("/models/m/versions/0", MODEL, BYTES, (400, "invalid_id")),
        ("/models/m/versions/x", MODEL, BYTES, (400, "invalid_id")),
        ("/models/m:1?alias=a/b", MODEL, BYTES, (400, "invalid_id")),
        ("/models/m:1?manifest=[]", MODEL, BYTES, (400, "malformed")),
        ("/models/m:1?manifest={", MODEL, BYTES, (400, "malformed")),
        ("/models/m:1", b"no form", {"Content-Type": "multipart/form-data"}, (400, "malformed")),
        ("/models/m:1", b"no form", {"Content-Type": "multipart/form-data; boundary=x"}, (400, "malformed")),
        ("/models/m:1", b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, (400, "malformed")),
        ("/models/m:1", b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, (400, "malformed")),
    ],
)
async def test_invalid_uploads_get_typed_errors(
    client: Client, path: str, data: bytes, headers: dict[str, str], expected: tuple[int, str], uploads: Path
) -> None:
    assert await code_of(await client.put(path, data=data, headers=headers)) == expected
    assert files_in(uploads) == []


@pytest.mark.parametrize(
    "parts", [{"manifest": b"{}"}, {"model": MODEL, "other": "x"}, {"model": MODEL, "manifest": "{"}]
)
async def test_forms_with_unknown_parts_are_rejected(client: Client, parts: dict[str, Any]) -> None:
    assert await code_of(await client.put("/models/m:1", data=form(**parts))) == (400, "malformed")


async def test_a_repeated_part_is_rejected(client: Client) -> None:
    data = form(model=MODEL)
    data.add_field("model", MODEL, filename="again")
    assert await code_of(await client.put("/models/m:1", data=data)) == (400, "malformed")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"version": 1, "oops": 2}', (400, "malformed")),
        (b"{}", (422, "invalid_value")),
        (b'{"version": 0}', (422, "invalid_value")),
    ],
)
async def test_aliases_of_unknown_versions_are_rejected(client: Client, body: bytes, expected: tuple[int, str]) -> None:
    answer = await client.put("/models/m/aliases/best", data=body, headers={"Content-Type": "application/json"})
    assert await code_of(answer) == expected


async def test_an_alias_may_be_set_in_messagepack(client: Client) -> None:
    await client.put("/models/m:1", data=MODEL, headers=BYTES)
    body = msgspec.msgpack.encode({"version": 1})
    answer = await client.put("/models/m/aliases/a", data=body, headers={"Content-Type": "application/msgpack"})
    assert answer.status == 200


async def test_aliases_have_a_history_and_are_rolled_back_and_promoted(client: Client) -> None:
    for _ in range(2):
        await client.put("/models/m", data=MODEL, headers=BYTES)
    asks = {"inferd-request": "1"}
    for version in (1, 2):
        answer = await client.put("/models/m/aliases/champion?changed_by=ana", json={"version": version})
        target = (await answer.json())["target"]
        assert (target["version"], target["revision"], target["changed_by"]) == (version, version, "ana")
    assert [each["version"] for each in target["history"]] == [1]
    late = await client.put("/models/m/aliases/champion?revision=1", json={"version": 1})
    assert await code_of(late) == (409, "alias_changed")
    back = await (await client.post("/models/m/aliases/champion/rollback", headers=asks)).json()
    assert (back["alias"], back["target"]["version"], back["target"]["restores"]) == ("champion", 1, 1)
    again = await client.post("/models/m/aliases/champion/rollback", headers=asks)
    assert await code_of(again) == (409, "no_earlier_target")
    await client.put("/models/m/aliases/next", json={"version": 2})
    promoted = await (await client.post("/models/m/aliases/next/promote?to=champion", headers=asks)).json()
    assert (promoted["alias"], promoted["target"]["version"], promoted["target"]["changed_by"]) == (
        "champion",
        2,
        "http",
    )
    listed = await (await client.get("/models/m/aliases")).json()
    assert [each["revision"] for each in listed["aliases"]["champion"]["history"]] == [3, 2, 1]
    (model,) = (await (await client.get("/models")).json())["models"]
    assert "history" not in model["aliases"]["champion"]
    assert model["aliases"]["champion"]["revision"] == 4


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models/m/aliases/champion/rollback?revision=x", (422, "invalid_value")),
        ("/models/m/aliases/champion/promote", (400, "invalid_id")),
        ("/models/m/aliases/champion/promote?to=a/b", (400, "invalid_id")),
        ("/models/m/aliases/a%2Fb/rollback", (400, "invalid_id")),
    ],
)
async def test_invalid_changes_of_aliases_get_typed_errors(
    client: Client, path: str, expected: tuple[int, str]
) -> None:
    await client.put("/models/m:1", data=MODEL, headers=BYTES)
    assert await code_of(await client.post(path, headers={"inferd-request": "1"})) == expected


async def test_the_baseline_of_a_version(client: Client) -> None:
    for version in (2, 3):
        await client.put(f"/models/m:{version}", data=MODEL, headers=BYTES)
    found = await (await client.get("/models/m/versions/3/baseline")).json()
    plan = found["baseline"]["features"]["plan"]
    assert (plan["kind"], plan["categories"], plan["counts"]) == ("category", ["basic", "pro"], [70, 30])
    assert await (await client.get("/models/m/versions/2/baseline")).json() == {"baseline": None}
    assert await code_of(await client.get("/models/m/versions/9/baseline")) == (404, "version_not_found")


async def test_concurrent_uploads_are_limited(client: Client) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield MODEL
        await gate.wait()

    async def upload() -> int:
        return (await client.put("/models/m", data=slow(), headers=BYTES)).status

    uploads = [asyncio.create_task(upload()) for _ in range(UPLOADS_MAX + 1)]
    done, _ = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [429]
    gate.set()
    assert sorted(await asyncio.gather(*uploads)) == [201] * UPLOADS_MAX + [429]


async def test_a_file_over_the_limit_is_rejected_early(client: Client, uploads: Path) -> None:
    for data in (io.BytesIO(b"x" * (UPLOAD_BYTES_MAX + 1)), chunks(UPLOAD_BYTES_MAX + 1)):
        assert await code_of(await client.put("/models/m:1", data=data, headers=BYTES)) == (413, "too_large")
    assert files_in(uploads) == []


async def chunks(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 65_536):
        yield b"x" * min(65_536, size - start)
