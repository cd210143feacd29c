"""The files of the page: types, caching, and nothing from other sites; `test_page_views` opens it in a browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core.page_files import files_of_page
from tests.unit.daemon.http.fake_http_services import FakeWorker

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with TestClient(TestServer(FakeWorker(tmp_path).app)) as client:
        yield client


async def test_files_have_their_types(client: Client) -> None:
    for path, content_type in (
        ("/", "text/html"),
        ("/page/app.js", "text/javascript"),
        ("/page/style.css", "text/css"),
    ):
        answer = await client.get(path)
        assert (answer.status, answer.content_type, answer.charset) == (200, content_type, "utf-8")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_known_file_is_not_sent_again(client: Client) -> None:
    first = await client.get("/page/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await client.get("/page/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    assert (await client.get("/page/app.js", headers={"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/%2e%2e%2fcore%2ftokens.py", "/page/"])
async def test_there_are_no_other_files(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
    assert (await client.delete("/")).status == 405


async def test_scripts_and_styles_are_files_of_the_server(client: Client) -> None:
    answer = await client.get("/")
    policy, text = answer.headers["Content-Security-Policy"], await answer.text()
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "nonce" not in policy
    assert not re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", text)


def test_nothing_comes_from_other_sites() -> None:
    for path, file in files_of_page().items():
        text = file.content.decode()
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path
        for imported in re.findall(r"from \"([^\"]+)\"", text):
            assert imported in files_of_page(), (path, imported)
