"""User routes: plain functions whose parameters are bound to the request by name and type."""

from inferd.daemon.http.user_routes.routes import UserRoutes

__all__ = ["UserRoutes"]
