"""`/openapi.json` is valid and complete, and responses conform to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import validate

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.application import create_app
from inferd.daemon.http.core.errors import HTTP_CODES
from inferd.daemon.http.routes.openapi import ALL_OPERATIONS, add_openapi, describe
from inferd.daemon.http.routes.predictions import add_predictions
from inferd.schemas.errors import CODES
from tests.fixtures.http_fuzz import fuzz_fake
from tests.unit.daemon.http.fake_http_services import FakePredictions, FakeWorker

METHODS = {"get", "put", "post", "delete", "patch", "options", "trace"}


@pytest.fixture
async def described(tmp_path: Path) -> dict[str, Any]:
    async with TestClient(TestServer(FakeWorker(tmp_path).app)) as client:
        answer = await client.get("/openapi.json")
        assert answer.headers["Content-Type"] == "application/json"
        found: dict[str, Any] = await answer.json()
        return found


def operations_of(described: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): item for path, items in described["paths"].items() for method, item in items.items()}


def test_it_is_valid(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1")
    validate(described)


def test_it_describes_every_route(described: dict[str, Any], tmp_path: Path) -> None:
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in FakeWorker(tmp_path).app.router.routes()
        if route.resource is not None and route.method.lower() in METHODS
    }
    assert set(operations_of(described)) == served == {(item.method, item.path) for item in ALL_OPERATIONS}


async def test_it_describes_only_existing_routes() -> None:
    app = create_app()
    add_predictions(app, FakePredictions())
    add_openapi(app)
    async with TestClient(TestServer(app)) as client:
        described = await (await client.get("/openapi.json")).json()
    assert set(described["paths"]) == {"/predict/{model_id}", "/openapi.json"}
    validate(described)


def test_predictions_and_their_errors_have_the_headers_of_the_alias(described: dict[str, Any]) -> None:
    found = {
        operation["operationId"]: operation["responses"]
        for path in described["paths"].values()
        for operation in path.values()
        if any("inferd-variant" in answer.get("headers", {}) for answer in operation["responses"].values())
    }
    assert set(found) == {"predict", "v2_model_infer", "v2_version_infer"}
    for responses in found.values():
        for status in ("200", "400", "404"):
            headers = responses[status]["headers"]
            assert set(headers) == {"inferd-alias-revision", "inferd-variant"}
            assert headers["inferd-variant"]["schema"]["enum"] == ["canary", "champion"]


def test_every_error_is_one_of_the_table(described: dict[str, Any]) -> None:
    codes = {**CODES, **HTTP_CODES}
    assert described["components"]["schemas"]["Fault"]["properties"]["code"]["enum"] == list(codes)
    for item in operations_of(described).values():
        for status, answer in item["responses"].items():
            for code in re.findall(r"`([a-z_]+)`: ", answer["description"]):
                assert codes[code].http_status == int(status)


def test_http_codes_differ_from_those_of_the_wire() -> None:
    assert not HTTP_CODES.keys() & CODES.keys()


def test_the_tenant_is_a_parameter_if_it_is_required() -> None:
    for access, expected in ((Access(("a", "b")), ["inferd-tenant"]), (Access(("a",)), [])):
        listing = describe(ALL_OPERATIONS, access)["paths"]["/models"]["get"]
        assert [item["name"] for item in listing.get("parameters", [])] == expected


def test_the_documentation_lists_the_http_codes() -> None:
    page = (Path(__file__).parents[4] / "docs" / "http.md").read_text(encoding="utf-8")
    rows = [f"| `{code}` | {error.meaning} | {error.http_status} |" for code, error in HTTP_CODES.items()]
    assert page.partition("<!-- http codes -->")[2].partition("<!-- end -->")[0].splitlines()[3:] == rows


async def test_generated_requests_conform_to_openapi(capfd: pytest.CaptureFixture[str]) -> None:
    """`make http-fuzz` runs ten thousand requests."""
    assert await fuzz_fake(10, "examples,fuzzing") == 0, capfd.readouterr().out
