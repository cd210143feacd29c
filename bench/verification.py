"""Verifies results: each request has exactly one, with the right fields and prediction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.layouts import MODEL_ID
from bench.requests import Requests

RESULT_FIELDS = frozenset({"id", "model_id", "version", "digest", "prediction"})

Numbers = NDArray[np.int64]


def verify(
    values: Iterable[bytes], requests: Requests, expected: NDArray[Any], model: tuple[int, str], peer: str
) -> Numbers:
    """The request number of each result in `values`, int64.

    Raises BenchError with the first problem, unless every request has exactly one result, from the `model` with this
    (version, digest), equal to `expected` bit for bit.
    """
    results = [_checked(requests.layout.read(value), model, peer) for value in values]
    numbers = _numbers(results, requests, peer)
    _check_counts(numbers, requests, peer)
    _check_predictions(results, numbers, requests, expected, peer)
    return numbers


def _checked(result: dict[str, object], model: tuple[int, str], peer: str) -> dict[str, object]:
    if result.keys() != RESULT_FIELDS:
        raise BenchError(f"{peer}: a result with the fields {', '.join(sorted(result))}: {str(result)[:300]}")
    if (result["model_id"], result["version"], result["digest"]) != (MODEL_ID, *model):
        raise BenchError(f"{peer}: a result of another model than {MODEL_ID}, {model}: {str(result)[:300]}")
    return result


def _numbers(results: list[dict[str, object]], requests: Requests, peer: str) -> Numbers:
    try:
        return np.array([requests.number(str(result["id"])) for result in results], dtype=np.int64)
    except ValueError as error:
        raise BenchError(f"{peer}: a result without a request: {error}") from error


def _check_counts(numbers: Numbers, requests: Requests, peer: str) -> None:
    seen = np.bincount(numbers, minlength=len(requests))
    lost, repeated = np.flatnonzero(seen == 0), np.flatnonzero(seen > 1)
    if lost.size or repeated.size:
        first = requests.request_id(int(lost[0] if lost.size else repeated[0]))
        raise BenchError(
            f"{peer}: of {len(requests)} requests {lost.size} have no result"
            f" and {repeated.size} have several; the first of them is {first}"
        )


def _check_predictions(
    results: list[dict[str, object]],
    numbers: Numbers,
    requests: Requests,
    expected: NDArray[Any],
    peer: str,
) -> None:
    predictions = [result["prediction"] for result in results]
    wrong = [(n, found) for n, found in zip(numbers, predictions, strict=True) if found != expected[n]]
    if wrong:
        number, found = wrong[0]
        raise BenchError(
            f"{peer}: {len(wrong)} predictions differ from the library's, the first is that of"
            f" {requests.request_id(int(number))}: {found!r} for {expected[number].item()!r}"
        )
