"""Replays past requests as a job of another version, and compares its results with what was answered then.

No worker is stopped, and no offset is moved: the requests are read by a consumer without a group.
"""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from inferd.cluster import Cluster, codec_of_record, records_between
from inferd.jobs import JobOptions, Jobs, rows_of
from inferd.schemas.codec import DECODE_ERRORS, decode_request
from inferd.schemas.errors import InferenceError, InvalidValueError
from inferd.schemas.labels import decode_label
from inferd.schemas.limits import Limits
from inferd.schemas.requests import ModelReference, Prediction, TensorRows, decode_result, default_id
from inferd.schemas.topics import Stream

QUANTILES = (0.5, 0.9, 0.99, 1.0)
PREDICTION = "prediction"
STRUCT_OF = {
    "f8": "d", "f4": "f", "f2": "e", "b1": "?",
    "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H", "u1": "B",
}  # fmt: skip
"""Formats of `struct` by numpy's names, without the byte order."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How the predictions of a replay differ from those that were answered."""

    rows: int
    """Rows that both have predicted."""
    missing: int
    """Rows whose earlier prediction is not in `results` any more, or was an error."""
    failed: int
    """Rows that the replay could not score."""
    equal: float | None
    """Share of rows with the same prediction, bit for bit; None without rows."""
    differences: Mapping[str, float] = {}
    """Quantiles of the absolute difference of numbers: `p50`, `p90`, `p99`, `max`."""
    mean_shift: float | None = None
    """Mean of new minus old, of numbers."""
    labelled: int = 0
    """Rows with a label of two classes."""
    auc_before: float | None = None
    auc_after: float | None = None
    """Area under the ROC curve of both, over the labelled rows; None unless both classes are there."""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A replay, as a job."""

    job_id: str
    requests: int
    """Past requests to the model."""
    rows: int
    skipped: int
    """Requests that could not be decoded."""
    comparison: Comparison | None = None
    """None without `compare`."""


@dataclass(slots=True)
class _Past:
    """The requests that were read."""

    ids: list[tuple[str, int]] = field(default_factory=list)
    """Id and number of rows of each request, in the order of the job's rows."""
    skipped: int = 0


class Replay:
    """Replays the requests of a tenant."""

    def __init__(self, cluster: Cluster, jobs: Jobs, limits: Limits) -> None:
        self._cluster, self._jobs, self._limits = cluster, jobs, limits

    async def run(
        self,
        model: ModelReference,
        since: datetime,
        until: datetime | None,
        *,
        job_id: str | None,
        limit: int | None,
        compare: bool,
        timeout_s: float,
        on_progress: Callable[[str], None],
    ) -> Replayed:
        """See `Client.replay`."""
        past = _Past()
        rows = self._rows(model.name, since, until, limit, past)
        labels = {"inferd-replay": f"{since.isoformat()} - {'' if until is None else until.isoformat()}"[:200]}
        async with aclosing(rows):
            first = await anext(rows, None)
            if first is None:
                raise InvalidValueError(f"there are no requests to {model.name!r} in that time")
            submitted = await self._jobs.submit(
                str(model), _with_first(first, rows), job_id, JobOptions(labels=labels), timeout_s
            )
        total = sum(count for _, count in past.ids)
        on_progress(f"job {submitted}: {total:,} rows of {len(past.ids):,} requests")
        done = Replayed(job_id=submitted, requests=len(past.ids), rows=total, skipped=past.skipped)
        if not compare:
            return done
        async with aclosing(self._jobs.watch(submitted)) as statuses:
            async for status in statuses:
                on_progress(f"job {submitted} is {status.status}")
        comparison = await self._compare(submitted, past, since)
        return msgspec.structs.replace(done, comparison=comparison)

    async def _rows(
        self, name: str, since: datetime, until: datetime | None, limit: int | None, past: _Past
    ) -> AsyncGenerator[list[Any], None]:
        """The rows of each request to the model, request by request."""
        async with aclosing(self._records("requests", since, until)) as records:
            async for record in records:
                if limit is not None and len(past.ids) >= limit:
                    return
                try:
                    request = decode_request(record.value, codec_of_record(record.headers), self._limits)
                except (InferenceError, *DECODE_ERRORS):
                    past.skipped += 1
                    continue
                if request.model.name != name:
                    continue
                data = request.input_data
                rows: list[Any] = _rows_of_tensor(data) if isinstance(data, TensorRows) else list(data.rows)
                past.ids.append((request.id or default_id(record.partition, record.offset), len(rows)))
                yield rows

    async def _compare(self, job_id: str, past: _Past, since: datetime) -> Comparison:
        before = await self._answers({request_id for request_id, _ in past.ids}, since)
        labels = await self._labels({request_id for request_id, _ in past.ids}, since)
        after: list[Any] = []
        async with aclosing(self._jobs.result_chunks(job_id, 0)) as chunks:
            async for chunk in chunks:
                after += [None if row.error is not None else row.outputs.get(PREDICTION) for row in rows_of(chunk, 0)]
        old: list[Any] = []
        truth: list[Any] = []
        for request_id, count in past.ids:
            old += _of_request(before.get(request_id), count)
            truth += _of_request(labels.get(request_id), count)
        return compared(old, after, truth)

    async def _answers(self, ids: set[str], since: datetime) -> dict[str, Any]:
        """The first prediction of each request, as a value or a list of values."""
        found: dict[str, Any] = {}
        async with aclosing(self._records("results", since, None)) as records:
            async for record in records:
                try:
                    result = decode_result(record.value, codec_of_record(record.headers), self._limits)
                except (InferenceError, *DECODE_ERRORS):
                    continue
                if isinstance(result, Prediction) and result.id in ids:
                    found.setdefault(result.id, result.outputs.get(PREDICTION))
        return found

    async def _labels(self, ids: set[str], since: datetime) -> dict[str, Any]:
        """The last label of each request; none if there is no such topic."""
        found: dict[str, Any] = {}
        if not (await self._cluster.topics_of_others([self._cluster.topics.name("labels")])).popitem()[1]:
            return found
        async with aclosing(self._records("labels", since, None)) as records:
            async for record in records:
                try:
                    label = decode_label(record.value, codec_of_record(record.headers), self._limits)
                except InferenceError:
                    continue
                if label.id in ids:
                    found[label.id] = label.label
        return found

    async def _records(self, stream: Stream, since: datetime, until: datetime | None) -> AsyncGenerator[Any, None]:
        """The records between two times, partition by partition."""
        async with (
            self._cluster.consumer(stream, await self._cluster.partitions(stream)) as consumer,
            aclosing(records_between(consumer, since, until)) as records,
        ):
            async for record in records:
                yield record


def _rows_of_tensor(tensor: TensorRows) -> list[Any]:
    rows, features = tensor.shape
    order, kind = ("<" if tensor.dtype[0] == "|" else tensor.dtype[0]), STRUCT_OF[tensor.dtype[1:]]
    values = struct.unpack(f"{order}{rows * features}{kind}", tensor.data)
    return [list(values[start : start + features]) for start in range(0, rows * features, features)] if features else []


async def _with_first(first: list[Any], rest: AsyncGenerator[list[Any], None]) -> AsyncGenerator[list[Any], None]:
    yield first
    async for item in rest:
        yield item


def _of_request(value: Any, count: int) -> Sequence[Any]:
    """The values of the rows of a request: of one row it may be a single value; None each if it is unknown."""
    if isinstance(value, list) and len(value) == count:
        return value
    return [value] if count == 1 else [None] * count


def compared(old: Sequence[Any], new: Sequence[Any], labels: Sequence[Any]) -> Comparison:
    """Compares predictions row by row; None: there is none. `labels`: None, or what was true."""
    pairs = [(a, b, truth) for a, b, truth in zip(old, new, labels, strict=True) if a is not None and b is not None]
    equal = sum(_same(a, b) for a, b, _ in pairs)
    numbers = [(float(a), float(b), truth) for a, b, truth in pairs if _is_number(a) and _is_number(b)]
    gaps = sorted(abs(b - a) for a, b, _ in numbers)
    labelled = [(a, b, _is_positive(truth)) for a, b, truth in numbers if _is_binary(truth)]
    return Comparison(
        rows=len(pairs),
        missing=sum(a is None and b is not None for a, b in zip(old, new, strict=True)),
        failed=sum(b is None for b in new),
        equal=equal / len(pairs) if pairs else None,
        differences={f"p{q * 100:g}" if q < 1 else "max": _quantile(gaps, q) for q in QUANTILES} if gaps else {},
        mean_shift=sum(b - a for a, b, _ in numbers) / len(numbers) if numbers else None,
        labelled=len(labelled),
        auc_before=auc([(a, truth) for a, _, truth in labelled]),
        auc_after=auc([(b, truth) for _, b, truth in labelled]),
    )


def auc(scored: Iterable[tuple[float, bool]]) -> float | None:
    """Area under the ROC curve: the probability that a positive has the higher score, ties count half. None unless both
    classes are there. By ranks (Mann-Whitney U)."""
    ordered = sorted(scored)
    positives = sum(truth for _, truth in ordered)
    negatives = len(ordered) - positives
    if not positives or not negatives:
        return None
    rank_sum, place = 0.0, 0
    while place < len(ordered):
        end = place
        while end < len(ordered) and ordered[end][0] == ordered[place][0]:
            end += 1
        mean_rank = (place + 1 + end) / 2
        rank_sum += mean_rank * sum(truth for _, truth in ordered[place:end])
        place = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _same(one: Any, other: Any) -> bool:
    if _is_number(one) and _is_number(other):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_binary(label: Any) -> bool:
    return isinstance(label, (bool, int, float)) and label in (0, 1)


def _is_positive(label: Any) -> bool:
    return bool(label == 1)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
