"""The windows of a tenant, from the changelog of the table that their owner writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from inferd.cluster import Cluster, is_behind
from inferd.errors import topic_not_found
from inferd.models import ModelList, ModelLog
from inferd.schemas.errors import InferenceError, VersionNotFoundError
from inferd.schemas.models import VersionKey
from inferd.schemas.monitoring import WINDOW_S, Baseline, Drift, WindowKey, WindowStats, decode_window, drift_of, merged

POLL_MS = 200


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The drift of one version, and the sum of the windows that it is of."""

    window: WindowStats
    baseline: Baseline | None
    """None if there is none yet."""
    drift: Drift | None


class WindowLog:
    """Reads the windows of a tenant."""

    def __init__(self, cluster: Cluster, models: ModelLog, now: Callable[[], float] = time.time) -> None:
        """`now`: Unix time in seconds."""
        self._cluster, self._models, self._now = cluster, models, now

    async def windows(
        self, model_id: str, version: int | None, since_s: float, group: str | None, timeout_s: float
    ) -> list[WindowStats]:
        """See `Client.model_windows`."""
        since = int(self._now() - since_s) // WINDOW_S
        found = await self._read(model_id, group, timeout_s)
        chosen = [each for each in found if each.minute >= since and version in (None, each.version)]
        return sorted(chosen, key=_order)

    async def drift(
        self, model_id: str, version: int | None, since_s: float, group: str | None, timeout_s: float
    ) -> list[DriftReport]:
        """See `Client.model_drift`."""
        models = await self._models.read(timeout_s)
        numbers = [manifest.version for manifest in models.versions_of(model_id)]
        if version is not None and version not in numbers:
            raise VersionNotFoundError(f"model {model_id!r} has no version {version}; it has {numbers}")
        found = await self.windows(model_id, version, since_s, group, timeout_s)
        return [report for number in sorted({each.version for each in found}) if
                (report := _report(models, model_id, number, found)) is not None]  # fmt: skip

    async def _read(self, model_id: str, group: str | None, timeout_s: float) -> list[WindowStats]:
        """All windows of a model, from the whole changelog as it is now."""
        topics = self._cluster.topics
        topic = f"{group or topics.namespace}-{topics.tenant}.model-windows-changelog"
        if not (await self._cluster.topics_of_others([topic]))[topic]:
            raise topic_not_found(topic, topics.tenant)
        newest: dict[bytes, bytes | None] = {}
        prefix = f"{model_id}:".encode()
        whole, tps = self._cluster.within(timeout_s, f"reading {topic}"), [TopicPartition(topic, 0)]
        async with whole, self._cluster.consumer_of_others(tps) as consumer:
            await consumer.seek_to_beginning()
            while await is_behind(consumer):
                for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                    newest |= {key: each.value for each in records if (key := each.key or b"").startswith(prefix)}
        return [window for value in newest.values() if (window := _decoded(value)) is not None]


def _report(models: ModelList, model_id: str, version: int, windows: Sequence[WindowStats]) -> DriftReport | None:
    baseline = models.baseline(VersionKey(model_id, version))
    total = merged(each for each in windows if each.version == version)
    if total is None:
        return None
    return DriftReport(total, baseline, drift_of(baseline, total) if baseline is not None else None)


def _decoded(value: bytes | None) -> WindowStats | None:
    try:
        return decode_window(value) if value is not None else None
    except InferenceError:
        return None


def _order(window: WindowStats) -> tuple[int, WindowKey]:
    return window.minute, WindowKey.of(window)
