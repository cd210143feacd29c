"""User routes: binding of parameters, error messages, and conversion of return values."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core.application import AppLimits, create_app
from inferd.daemon.http.user_routes.routes import UserRoutes
from inferd.schemas.errors import ModelNotFoundError, ServerError

Client = TestClient[web.Request, web.Application]
JSON = "application/json"


class Order(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass
class Point:
    x: float
    y: float


def own() -> UserRoutes:
    app = UserRoutes()

    @app.post("/predict_batch/{model_id}")
    async def predict_batch(model_id: str, input_batch: list) -> dict[str, Any]:  # type: ignore[type-arg]
        return {"model_id": model_id, "count": len(input_batch)}

    @app.post("/two/{number}")
    def two(number: int, rows: list[list[float]], labels: dict[str, str] | None = None) -> Any:
        return [number, rows, labels, threading.current_thread() is threading.main_thread()]

    @app.put("/order")
    async def order(order: Order) -> Order:
        return order

    @app.patch("/any")
    async def any_body(value) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return value

    @app.post("/raw")
    async def raw(body: bytes) -> bytes:
        return body[::-1]

    @app.get("/search")
    async def search(text: str, limit: int = 10, tags: list[str] = [], exact: bool = False) -> Any:  # noqa: B006
        return [text, limit, tags, exact]

    @app.delete("/things/{thing:[a-z]+}")
    async def remove(request: web.Request, thing: str) -> None:
        assert request.match_info["thing"] == thing

    @app.get("/value/{kind}")
    async def value(kind: str) -> Any:
        return VALUES[kind]()

    return app


def bug() -> Any:
    raise ZeroDivisionError("row 4711")


def typed() -> Any:
    raise ModelNotFoundError("there is no model 'x'")


VALUES: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"a": [1, None]},
    "struct": lambda: Order("x"),
    "dataclass": lambda: Point(1.0, 2.0),
    "numpy": lambda: {"mean": np.float32(0.5), "rows": np.eye(2)},
    "number": lambda: 7,
    "text": lambda: "grüß",
    "bytes": lambda: b"\x00\x01",
    "none": lambda: None,
    "created": lambda: (201, {"id": 1}),
    "gone": lambda: (204, None),
    "pair": lambda: (1, 2),
    "response": lambda: web.Response(text="own", status=418),
    "object": object,
    "bug": bug,
    "typed": typed,
}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = create_app(limits=AppLimits(body_bytes_max=8_000))
    own().add_to(app)
    app.router.add_post("/order", built_in)
    async with TestClient(TestServer(app)) as client:
        yield client


async def built_in(_request: web.Request) -> web.Response:
    return web.Response(text="built in")


async def asked(client: Client, method: str, path: str, body: Any = None, content_type: str = JSON) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": content_type}
    async with client.request(method, path, data=data, headers=headers) as answer:
        text = await answer.read()
        return answer.status, json.loads(text) if answer.content_type == JSON else text


async def refused(
    client: Client, method: str, path: str, body: Any = None, content_type: str = JSON
) -> tuple[int, str]:
    status, answer = await asked(client, method, path, body, content_type)
    assert set(answer) == {"error"}, answer
    return status, f"{answer['error']['code']}: {answer['error']['message']}"


@pytest.mark.parametrize("body", [[[1], [2]], {"input_batch": [[1], [2]]}])
async def test_one_parameter_is_the_body_or_its_field(client: Client, body: Any) -> None:
    assert await asked(client, "POST", "/predict_batch/churn@champion", body) == (
        200,
        {"model_id": "churn@champion", "count": 2},
    )


async def test_message_pack_is_accepted(client: Client) -> None:
    body = msgspec.msgpack.encode({"input_batch": [1, 2, 3]})
    assert (await asked(client, "POST", "/predict_batch/m", body, "application/msgpack"))[1]["count"] == 3


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/predict_batch/m", {"rows": [1]}, (422, "invalid_value: body input_batch: the field is missing")),
        ("/predict_batch/m", {}, (422, "invalid_value: body input_batch: the field is missing")),
        (
            "/predict_batch/m",
            {"input_batch": "x"},
            (422, "invalid_value: body input_batch: Expected `array`, got `str`"),
        ),
        (
            "/predict_batch/m",
            {"input_batch": [], "x": 1},
            (422, "invalid_value: body x: unknown field; expected: input_batch"),
        ),
        ("/predict_batch/m", "text", (422, "invalid_value: body input_batch: Expected `array`, got `str`")),
        ("/predict_batch/m", b"{", (400, "malformed: body: ")),
        ("/predict_batch/m", b"", (400, "malformed: body: ")),
        ("/predict_batch/m", b'{"input_batch": [], "input_batch": []}', (400, "malformed: body: ")),
        ("/predict_batch/m", b"[NaN]", (400, "malformed: body: ")),
        ("/predict_batch/m", b"[" * 5_000, (400, "too_deep: body: ")),
        ("/predict_batch/m", b'"\xff"', (400, "malformed: body: ")),
        ("/two/7", {"rows": [[1, "x"]]}, (422, "invalid_value: body rows[0][1]: Expected `float`, got `str`")),
        ("/two/7", {"labels": {}}, (422, "invalid_value: body rows: the field is missing; expected: rows, labels")),
        ("/two/7", [1], (422, "invalid_value: body: expected an object with rows, labels, got list")),
        ("/two/x", {"rows": []}, (422, "invalid_value: path number: Expected `int`, got `str`")),
    ],
)
async def test_an_invalid_body_names_the_field(client: Client, path: str, body: Any, expected: tuple[int, str]) -> None:
    status, words = await refused(client, "POST", path, body)
    assert status == expected[0]
    assert words.startswith(expected[1])


async def test_a_body_of_a_wrong_type_or_size_is_rejected(client: Client) -> None:
    assert (await refused(client, "POST", "/predict_batch/m", b"[]", "text/plain"))[0] == 415
    assert (await refused(client, "POST", "/predict_batch/m", b" " * 9_000 + b"[]"))[0] == 413


async def test_several_parameters_are_fields(client: Client) -> None:
    assert await asked(client, "POST", "/two/7", {"rows": [[1, 2.5]]}) == (200, [7, [[1.0, 2.5]], None, False])
    body = {"rows": [], "labels": {"a": "b"}}
    assert await asked(client, "POST", "/two/-1", body) == (200, [-1, [], {"a": "b"}, False])


async def test_a_struct_is_the_body_or_a_field(client: Client) -> None:
    whole = {"name": "x", "count": 3}
    assert await asked(client, "PUT", "/order", whole) == (200, whole)
    assert await asked(client, "PUT", "/order", {"order": whole}) == (200, whole)
    status, words = await refused(client, "PUT", "/order", {"name": "x", "count": 0})
    assert (status, words) == (422, "invalid_value: body order.count: Expected `int` >= 1")
    assert "missing required field `name`" in (await refused(client, "PUT", "/order", {"count": 1}))[1]
    assert "unknown field `colour`" in (await refused(client, "PUT", "/order", {"name": "x", "colour": 1}))[1]


async def test_a_parameter_without_a_type_accepts_any_value(client: Client) -> None:
    for body in ([1, {"a": None}], {"b": 1}, "x", 7):
        assert await asked(client, "PATCH", "/any", body) == (200, body) if not isinstance(body, str) else (200, b"x")


async def test_bytes_are_the_unchanged_body(client: Client) -> None:
    assert await asked(client, "POST", "/raw", b"abc", "text/csv") == (200, b"cba")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("text=a", ["a", 10, [], False]),
        ("text=7&limit=3&tags=x&exact=true", ["7", 3, ["x"], True]),
        ("text=%C3%BC&tags=x&tags=y", ["ü", 10, ["x", "y"], False]),
    ],
)
async def test_a_query_is_bound_by_name_and_type(client: Client, query: str, expected: list[Any]) -> None:
    assert await asked(client, "GET", f"/search?{query}") == (200, expected)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "query text: the field is missing; expected: text, limit, tags, exact"),
        ("text=a&limit=x", "query limit: Expected `int`, got `str`"),
        ("text=a&limt=1", "query limt: unknown field"),
        ("text=a&text=b", "query text: Expected `str`, got `array`"),
    ],
)
async def test_an_invalid_query_names_the_field(client: Client, query: str, words: str) -> None:
    status, error = await refused(client, "GET", f"/search?{query}")
    assert status == 422
    assert error.startswith(f"invalid_value: {words}")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dict", (200, {"a": [1, None]})),
        ("struct", (200, {"name": "x", "count": 1})),
        ("dataclass", (200, {"x": 1.0, "y": 2.0})),
        ("numpy", (200, {"mean": 0.5, "rows": [[1.0, 0.0], [0.0, 1.0]]})),
        ("number", (200, 7)),
        ("text", (200, "grüß".encode())),
        ("bytes", (200, b"\x00\x01")),
        ("none", (204, b"")),
        ("created", (201, {"id": 1})),
        ("gone", (204, b"")),
        ("pair", (200, [1, 2])),
        ("response", (418, b"own")),
    ],
)
async def test_the_return_value_is_the_response(client: Client, kind: str, expected: tuple[int, Any]) -> None:
    assert await asked(client, "GET", f"/value/{kind}") == expected


async def test_a_bug_is_internal_and_shows_nothing(client: Client) -> None:
    for kind in ("bug", "object"):
        status, words = await refused(client, "GET", f"/value/{kind}")
        assert status == 500
        assert words.startswith("internal: ")
        assert "4711" not in words
    assert await refused(client, "GET", "/value/typed") == (404, "model_not_found: there is no model 'x'")


async def test_built_in_routes_remain(client: Client) -> None:
    assert await asked(client, "POST", "/order", {}) == (200, b"built in")
    assert await asked(client, "DELETE", "/things/abc") == (204, b"")
    assert (await refused(client, "DELETE", "/things/ABC"))[0] == 404
    async with client.get("/order") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST,PUT")
    async with client.head("/search?text=a") as answer:
        assert answer.status == 200


async def test_the_latest_route_of_a_path_answers(aiohttp_client_of: Callable[[UserRoutes], Any]) -> None:
    routes = UserRoutes()
    for number in (1, 2):
        routes.get("/n")(lambda number=number: number)
    assert list(routes) == ["GET /n"]
    client = await aiohttp_client_of(routes)
    assert await asked(client, "GET", "/n?number=5") == (200, b"5")
    assert await asked(client, "GET", "/n") == (200, 2)


@pytest.fixture
async def aiohttp_client_of() -> AsyncIterator[Callable[[UserRoutes], Any]]:
    clients: list[Client] = []

    async def make(routes: UserRoutes) -> Client:
        app = create_app()
        routes.add_to(app)
        clients.append(TestClient(TestServer(app)))
        await clients[-1].start_server()
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


def takes_rest(**rest: Any) -> None: ...


def takes_nothing() -> None: ...


def takes_bytes_and_more(data: bytes, name: str) -> None: ...


def takes_what_nobody_knows(value: Nobody) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("path", "function", "words"),
    [
        ("/a", takes_rest, "rest: 'Any' cannot be bound by name"),
        ("/a/{b}", takes_nothing, "the path has 'b', but the function has no such parameter"),
        ("/a", takes_bytes_and_more, "a bytes parameter is the whole body"),
        ("/a", takes_what_nobody_knows, "its annotations cannot be resolved"),
        ("a", takes_nothing, "must start with /"),
        ("/a/{", takes_nothing, "expected a path such as /predict_batch/"),
    ],
)
def test_unbindable_functions_are_rejected_when_added(path: str, function: Any, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        UserRoutes().post(path)(function)


def test_no_route_is_added_once_the_server_has_started() -> None:
    routes = UserRoutes()
    routes.add_to(create_app())
    with pytest.raises(ServerError, match="add routes in _setup_routes"):
        routes.get("/late")
