"""Why this worker cannot answer for a job now, though another one may, or this one a little later."""

from __future__ import annotations

from inferd.schemas.errors import ServerError


class RetryLaterError(ServerError):
    """The broker or the group does not let this be done now; asking again later may do."""

    code = "unavailable"
    http_status = 503
    retryable = True


class NotOwnerError(RetryLaterError):
    """The job belongs to another worker; `url` is where that one answers, None while nobody does."""

    def __init__(self, url: str | None) -> None:
        where = "no worker has the job now: the group is rebalancing; ask again in a moment"
        super().__init__(where if url is None else f"the job belongs to the worker at {url}: ask there")
        self.url = url
