"""Errors for a job that this worker cannot answer for now; another worker may, or this one later."""

from __future__ import annotations

from inferd.schemas.errors import ServerError


class RetryLaterError(ServerError):
    """The broker or the group does not allow the operation now; a retry may succeed."""

    code = "unavailable"
    http_status = 503
    retryable = True


class NotOwnerError(RetryLaterError):
    """The job belongs to another worker; `url` is its URL, or None if it is unknown."""

    def __init__(self, url: str | None) -> None:
        where = "no worker owns the job now: the group is rebalancing; retry in a moment"
        super().__init__(where if url is None else f"the job belongs to the worker at {url}: ask there")
        self.url = url
