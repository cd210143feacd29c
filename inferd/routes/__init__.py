"""Routes: the route records of a tenant, and their checks against topics, models and each other."""

from inferd.routes.checks import check_fits
from inferd.routes.log import RouteLog, Start

__all__ = ["RouteLog", "Start", "check_fits"]
