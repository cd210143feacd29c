"""The worker's own services behind the routes that are there before the streams are."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.http.errors import UnavailableError
from daemon.http.services import Predictions


class StreamsPredictions:
    """Predictions by the streams that run now; `UnavailableError` while there are none."""

    def __init__(self) -> None:
        self._streams: Predictions | None = None

    def follow(self, streams: Predictions | None) -> None:
        """Predictions are `streams`' from now on."""
        self._streams = streams

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> bytes:
        """See `Predictions`."""
        if self._streams is None:
            raise UnavailableError("the worker is starting: GET /readyz says what it waits for")
        return await self._streams.predict(tenant, value, headers)
