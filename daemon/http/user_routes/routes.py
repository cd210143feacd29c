"""`.app` of a `ModelServer`: collects user routes by decorator, and adds them to the application later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from inferd.daemon.http.core import ROLES_OF, Respond, Role, check_tenant
from inferd.daemon.http.user_routes.binding import BoundFunction, bind
from inferd.schemas.errors import ServerError
from inferd.schemas.topics import DEFAULT_TENANT

F = TypeVar("F", bound=Callable[..., Any])


class UserRoutes:
    """User routes of one tenant. A later route replaces an earlier one with the same path and method.

    They are closed to tokens of other tenants and to those without the role of the route, as the built-in routes are.

    >>> routes = UserRoutes()
    >>> @routes.get("/hello/{name}")
    ... async def hello(name: str) -> dict[str, str]:
    ...     return {"hello": name}
    >>> [str(route) for route in routes]
    ['GET /hello/{name}']
    """

    def __init__(self, tenant: str = DEFAULT_TENANT) -> None:
        self._tenant = tenant
        self._routes: dict[tuple[str, str], tuple[BoundFunction, Role]] = {}
        self._closed = False

    def __iter__(self) -> Any:
        """`METHOD path` of each route."""
        return iter([f"{method} {path}" for method, path in self._routes])

    def get(self, path: str, role: Role = "predict") -> Callable[[F], F]:
        """The decorated function answers GET (and HEAD)."""
        return self.route("GET", path, role)

    def post(self, path: str, role: Role = "predict") -> Callable[[F], F]:
        """The decorated function answers POST."""
        return self.route("POST", path, role)

    def put(self, path: str, role: Role = "predict") -> Callable[[F], F]:
        """The decorated function answers PUT."""
        return self.route("PUT", path, role)

    def patch(self, path: str, role: Role = "predict") -> Callable[[F], F]:
        """The decorated function answers PATCH."""
        return self.route("PATCH", path, role)

    def delete(self, path: str, role: Role = "predict") -> Callable[[F], F]:
        """The decorated function answers DELETE."""
        return self.route("DELETE", path, role)

    def route(self, method: str, path: str, role: Role = "predict") -> Callable[[F], F]:
        """The decorated function answers `method`; see `inferd.daemon.http.user_routes.binding` for its parameters.

        `role`: the role that a bearer token needs.

        Raises `ServerError` if the path or the parameters are invalid, or if the server has started.
        """
        if self._closed:
            raise ServerError(f"route {method} {path}: the server has started; add routes in _setup_routes")
        _resource(path)

        def add(function: F) -> F:
            self._routes[method.upper(), path] = bind(method.upper(), path, function), role
            return function

        return add

    def add_to(self, app: web.Application) -> None:
        """Adds the routes to an application without routes, so that they take precedence over the built-in ones."""
        self._closed = True
        for (method, path), (bound, role) in self._routes.items():
            resource = _resource(path)
            app[ROLES_OF][method.lower(), resource.canonical] = (role,)
            answer = self._of_tenant(bound)
            resource.add_route(method, answer)
            if method == "GET" and ("HEAD", path) not in self._routes:
                resource.add_route("HEAD", answer)
            app.router.register_resource(resource)
        # aiohttp adds a route to the resource before it if their paths are equal, and refuses the methods of that one.
        app.router.register_resource(web.DynamicResource(_NO_PATH))

    def _of_tenant(self, bound: BoundFunction) -> Respond:
        async def answer(request: web.Request) -> web.StreamResponse:
            check_tenant(request, self._tenant)
            return await bound(request)

        return answer


_NO_PATH = "/{none:(?!)}"
"""Matches nothing."""


def _resource(path: str) -> web.Resource:
    """A resource for one route: for other methods of the path, aiohttp still finds the built-in routes."""
    try:
        return web.DynamicResource(path) if "{" in path else web.PlainResource(_checked(path))
    except ValueError as error:
        raise ServerError(f"route {path!r}: {error}; expected a path such as /predict_batch/{{model_id}}") from None


def _checked(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("it must start with /")
    return path
