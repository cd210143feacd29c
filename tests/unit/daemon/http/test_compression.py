"""Large JSON answers are compressed for those who accept it."""

from __future__ import annotations

import gzip
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core import create_app
from inferd.daemon.http.core.compression import COMPRESSED_FROM_BYTES, IN_A_THREAD_FROM_BYTES, accepts_gzip
from inferd.daemon.http.core.errors import json_response

LARGE = {"text": "a" * COMPRESSED_FROM_BYTES}
VERY_LARGE = {"text": "a" * IN_A_THREAD_FROM_BYTES}


async def answer(request: web.Request) -> web.StreamResponse:
    return json_response({"small": {"a": 1}, "large": LARGE, "very-large": VERY_LARGE}[request.match_info["size"]])


async def plain(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="a" * COMPRESSED_FROM_BYTES)


async def ask(path: str, accepted: str | None, method: str = "GET") -> tuple[str | None, bytes]:
    """The content-encoding of an answer, and its bytes as they were sent."""
    app = create_app()
    app.router.add_get("/plain", plain)
    app.router.add_route("*", "/{size}", answer)
    headers = {"inferd-request": "1"} | ({} if accepted is None else {"accept-encoding": accepted})
    server = TestServer(app)
    async with TestClient(server, auto_decompress=False, skip_auto_headers=["accept-encoding"]) as client:
        response = await client.request(method, path, headers=headers)
        assert response.status == 200
        body = await response.read()
        assert response.headers["content-length"] == str(len(body))
        assert response.headers.get("vary") == (
            "Accept-Encoding" if path.endswith("large") and method == "GET" else None
        )
        return response.headers.get("content-encoding"), body


@pytest.mark.parametrize(("path", "value"), [("/large", LARGE), ("/very-large", VERY_LARGE)])
async def test_large_json_is_compressed_if_gzip_is_accepted(path: str, value: object) -> None:
    coding, body = await ask(path, "gzip, deflate, br")
    assert coding == "gzip"
    assert len(body) < COMPRESSED_FROM_BYTES / 10
    assert json.loads(gzip.decompress(body)) == value


@pytest.mark.parametrize(
    ("path", "accepted", "method"),
    [
        ("/large", None, "GET"),
        ("/large", "deflate", "GET"),
        ("/large", "gzip;q=0", "GET"),
        ("/large", "gzip", "POST"),
        ("/small", "gzip", "GET"),
        ("/plain", "gzip", "GET"),
    ],
)
async def test_other_answers_are_sent_as_they_are(path: str, accepted: str | None, method: str) -> None:
    coding, body = await ask(path, accepted, method)
    assert coding is None
    assert body[:1] in (b"{", b"a")


@pytest.mark.parametrize(
    ("headers", "accepts"),
    [
        (["gzip"], True),
        (["br, GZIP;q=0.5"], True),
        (["br", "gzip; q=1"], True),
        (["gzip;q=0"], False),
        (["gzip; q=0.000"], False),
        (["x-gzip"], False),
        (["*"], False),
        ([""], False),
        ([], False),
    ],
)
def test_what_accepts_gzip(headers: list[str], accepts: bool) -> None:
    assert accepts_gzip(headers) == accepts
