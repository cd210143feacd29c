"""Opening tables with many entries leaves the event loop free, and their entries are all found afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from pathlib import Path

import pytest

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.faust_app import create_app
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.jobs.job_store import JobStore
from inferd.streams.jobs.state import JobState, encode_state
from inferd.streams.kafka import TableName
from inferd.streams.requests import CacheTable
from inferd.streams.settings import StreamSettings, TopicSettings
from inferd.streams.state import LaneTable, make_table
from inferd.streams.tasks.slices import PART, SLICE_S, Slices

ENTRIES = 10 * PART


async def filled(directory: Path, name: TableName, store: Path | None, value: bytes = b"v" * 24) -> LaneTable:
    settings = StreamSettings(KafkaConnection(), "w1", directory, "ns", topics=TopicSettings(partitions=1))
    table = make_table(create_app(settings), settings, "default", name, store)
    (partition,) = await table.retain({0})
    partition.restore([(b"version1%023d" % n, value) for n in range(ENTRIES)], ENTRIES)
    return table


def slices_of_one_part() -> Slices:
    ticks = itertools.count(0.0, 2 * SLICE_S)
    return Slices(lambda: next(ticks))


async def turns_during(work: Awaitable[None]) -> int:
    """How often the event loop ran other tasks."""
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    return turns


@pytest.mark.parametrize("on_disk", [False, True])
async def test_the_cache_opens_in_slices(tmp_path: Path, *, on_disk: bool) -> None:
    table = await filled(tmp_path, "predictions", tmp_path / "tables" if on_disk else None)
    predictions = CacheTable("default", table, ModelCatalog(), ttl_max_s=60)
    predictions.slices = slices_of_one_part()
    assert await turns_during(predictions.open(0)) >= ENTRIES // PART
    opened = predictions.cache.open(1, table.partition(0))
    opened.restore(table.partition(0).store.items())
    assert len(opened) == ENTRIES
    await table.close()


async def test_job_states_are_read_in_slices(tmp_path: Path) -> None:
    table = await filled(tmp_path, "jobs", None, encode_state(JobState("j", 1, 1)))
    jobs = JobStore("default", table, DEFAULT_LIMITS)
    jobs.slices = slices_of_one_part()
    assert await turns_during(jobs.open(0)) >= ENTRIES // PART
    assert len(jobs.partitions[0].active) == ENTRIES
