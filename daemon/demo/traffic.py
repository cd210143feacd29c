"""The requests of the demo: a burst, a steady stream, and bad ones."""

from __future__ import annotations

import asyncio
import time
from asyncio import Task
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.client import Client
from inferd.schemas.errors import ModelServingError
from inferd.schemas.requests import DEFAULT_OUTPUTS, Output, Prediction, Result

WINDOW = 4_096


@dataclass(frozen=True, slots=True)
class Burst:
    """Results of a burst in order, and its duration."""

    results: list[Result]
    seconds: float

    @property
    def requests_per_s(self) -> float:
        """Throughput from the first request to the last result."""
        return len(self.results) / self.seconds


async def burst(client: Client, model: str, rows: Sequence[Any], outputs: Sequence[Output] = DEFAULT_OUTPUTS) -> Burst:
    """Sends one request per row, with up to `WINDOW` requests in flight."""
    started = time.perf_counter()
    results = [result async for result in client.predict_many(model, rows, outputs=outputs, window=WINDOW)]
    return Burst(results, time.perf_counter() - started)


async def steady(client: Client, model: str, rows: Sequence[Any], rate: float) -> list[float]:
    """Seconds from the scheduled time of each request to its result (open loop: requests are sent on schedule)."""
    started = time.perf_counter()

    async def request(due: float, row: Any) -> float:
        await client.predict(model, row)
        return time.perf_counter() - due

    tasks: list[Task[float]] = []
    for number, row in enumerate(rows):
        due = started + number / rate
        if (ahead_s := due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead_s)
        tasks.append(asyncio.create_task(request(due, row)))
    return await asyncio.gather(*tasks)


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request that must be rejected, and the expected code."""

    what: str
    code: str
    model: str
    input_data: Any
    headers: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The result of a bad request; `code` is None if it got a prediction."""

    what: str
    expected_code: str
    code: str | None
    message: str


def bad_requests(model: str, names: Sequence[str], row: Sequence[Any]) -> list[BadRequest]:
    """Variations of a valid row, each with one fault."""
    named = dict(zip(names, row, strict=True))
    first, *_ = named
    past_ms = str(int(time.time() * 1_000) - 1_000)
    return [
        BadRequest("an unknown airport", "invalid_value", model, {**named, "destination": "XYZ"}),
        BadRequest("text for a number", "invalid_value", model, {**named, "distance_miles": "far"}),
        BadRequest("one value missing", "schema_mismatch", model, list(row[:-1])),
        BadRequest("a misspelt feature name", "schema_mismatch", model, {**named, "distnace_miles": 1.0}),
        BadRequest(f"no {first}", "schema_mismatch", model, {k: v for k, v in named.items() if k != first}),
        BadRequest("an unknown model", "model_not_found", "weather", list(row)),
        BadRequest("an unknown version", "version_not_found", f"{model}:99", list(row)),
        BadRequest("a deadline that has passed", "deadline_exceeded", model, list(row), {"deadline": past_ms}),
    ]


async def send_bad_request(client: Client, bad: BadRequest) -> Rejection:
    """Sends a bad request and returns its result."""
    try:
        prediction: Prediction = await client.predict(bad.model, bad.input_data, headers=bad.headers)
    except ModelServingError as error:
        return Rejection(bad.what, bad.code, error.code, error.message)
    return Rejection(bad.what, bad.code, None, f"a prediction: {prediction.outputs}")
