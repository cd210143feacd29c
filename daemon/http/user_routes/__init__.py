"""Users' own routes beside ours: plain functions, bound to requests by the names and types of their parameters."""

from inferd.daemon.http.user_routes.routes import OwnRoutes

__all__ = ["OwnRoutes"]
