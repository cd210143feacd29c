"""Faults of stored data: topics that reject records, records deleted by retention, lost or damaged state on disk."""

from __future__ import annotations

import random
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from tests.chaos.faults import fault
from tests.chaos.fleet import freeze, status, thaw
from tests.chaos.ledger import Place
from tests.chaos.proxy import PRODUCE
from tests.chaos.system import System
from tests.fixtures.workers import until

SAID_WITHIN_S = 30.0
UNSENDABLE_BYTES = "100"
"""Less than any result, and more than the marker that ends a transaction."""
COMMITTED_WITHIN_S, HELD_WITHIN_S = 1.5, 15.0
TO_THE_END = -1


def configure(system: System, stream: str, name: str, value: str | None) -> None:
    """Sets or removes a topic's setting for every tenant."""
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    entries = [ConfigEntry(name, value or "", incremental_operation=operation)]
    resources = [
        ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries) for topic in system.topics(stream)
    ]
    admin = system.admin
    for changed in admin.incremental_alter_configs(resources, request_timeout=20).values():
        changed.result(20)


@contextmanager
def results_unacknowledged(system: System) -> Iterator[None]:
    """In this block responses to produce requests of workers behind the proxy are held; other connections are not
    affected."""
    system.proxy.swallowed_requests = frozenset({PRODUCE})
    try:
        yield
    finally:
        system.proxy.heal()


@fault("results refused", recovers_within_s=90.0)
def results_refused(system: System, rng: random.Random) -> None:
    """The result topics reject records: offsets are held, and `/status` says why."""
    configure(system, "results", "max.message.bytes", UNSENDABLE_BYTES)
    try:
        system.fault_said(("published", "size", "large"), SAID_WITHIN_S)
        # Offsets acknowledged earlier may still be committed, and the topics do not start to reject at the same time.
        until(lambda: _stands_still(system), HELD_WITHIN_S, "offsets are held")
        held = system.committed()
        system.run_on(1 if system.brief else rng.uniform(2, 8))
        later = {place: offset for place, offset in system.committed().items() if offset != held[place]}
        assert not later, f"offsets were committed without results: {later}, held were {held}"
    finally:
        configure(system, "results", "max.message.bytes", None)
        system.mark()


def _stands_still(system: System) -> bool:
    before = system.committed()
    system.run_on(COMMITTED_WITHIN_S)
    return system.committed() == before


@fault("results refused", recovers_within_s=90.0)
def results_unacknowledged_then_kill(system: System, _rng: random.Random) -> None:
    """Results are not acknowledged, and the workers that wait for it are killed."""
    slots = system.fleet.proxied_slots
    with results_unacknowledged(system):
        system.run_on(1.5)
        for slot in slots:
            system.fleet.kill(system.fleet.slots[slot])
    system.mark()
    for slot in slots:
        system.fleet.restart(slot)


@fault("retention", recovers_within_s=90.0)
def retention(system: System, rng: random.Random) -> None:
    """Retention passes the committed offsets while no worker runs: workers report which records are missing, and how
    many."""
    for worker in system.fleet.slots:
        system.fleet.kill(worker)
    system.run_on(1)
    committed = system.committed()
    committed = {place: offset for place, offset in committed.items() if offset >= 0}
    overtaken = rng.sample(sorted(committed), max(1, len(committed) // 2))
    ends = _ends(system, overtaken)
    starts = _delete(system, {p: min(ends[p], committed[p] + rng.randint(20, 100)) for p in overtaken})
    missing = {place: range(committed[place], start) for place, start in starts.items()}
    for slot in range(len(system.fleet.slots)):
        system.fleet.restart(slot)
    system.mark()
    expected = sum(map(len, missing.values()))
    until(lambda: _named_missing(system) >= expected, SAID_WITHIN_S, f"{expected} records are said to be missing")
    _count_gaps(system, missing)


@fault("retention", recovers_within_s=90.0)
def retention_while_reading(system: System, rng: random.Random) -> None:
    """Retention passes the position of a running worker: it reports how many records are missing."""
    slot = rng.randrange(len(system.fleet.slots))
    worker = system.fleet.slots[slot]
    places, before = system.fleet.places(worker), _named_missing(system)
    freeze(worker)
    try:
        system.run_on(system.fleet.session_timeout_s * 0.4)
        positions = {place: offset for place, offset in system.committed().items() if place in places}
        starts = _delete(system, dict.fromkeys(positions, TO_THE_END))
    finally:
        thaw(worker)
    system.mark(places)
    system.run_on(1)
    gaps = {place: range(positions[place], start) for place, start in starts.items()}
    # Records that were already fetched are answered.
    until(
        lambda: 0 < _named_missing(system) - before >= system.ledger.unanswered(gaps),
        SAID_WITHIN_S,
        "a worker says of what is not answered that it is missing",
    )
    _count_gaps(system, gaps)


def _count_gaps(system: System, gaps: Mapping[Place, range]) -> None:
    for place, offsets in gaps.items():
        system.ledger.gap(place, offsets)
        system.count("records deleted by retention", len(offsets))


def _delete(system: System, befores: Mapping[Place, int]) -> dict[Place, int]:
    """Deletes the records before these offsets; returns the new start offsets of the logs."""
    asked = [_partition(system, place, before) for place, before in befores.items()]
    admin = system.admin
    deleted = admin.delete_records(asked, request_timeout=20)
    return {_place(tp): answer.result(20).low_watermark for tp, answer in deleted.items()}


def _ends(system: System, places: Collection[Place]) -> dict[Place, int]:
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {_partition(system, place): latest for place in places}
    admin = system.admin
    found = admin.list_offsets(asked, request_timeout=20)
    return {_place(tp): answer.result(20).offset for tp, answer in found.items()}


def _partition(system: System, place: Place, offset: int = TO_THE_END) -> TopicPartition:
    return TopicPartition(f"{system.namespace}.{place.tenant}.requests", place.partition, offset)


def _place(tp: TopicPartition) -> Place:
    return Place(tp.topic.split(".")[1], tp.partition)


def _named_missing(system: System) -> int:
    return sum(status(worker).get("records_missing", 0) for worker in system.fleet.slots)


# ---------------------------------------------------------------------- state on disk


@fault("state lost")
def state_deleted(system: System, rng: random.Random) -> None:
    """A worker is killed, and starts again without its state directory."""
    slot = rng.randrange(len(system.fleet.slots))
    worker = system.fleet.slots[slot]
    places = system.fleet.places(worker)
    system.fleet.kill(worker)
    shutil.rmtree(system.directory / f"data{slot}", ignore_errors=True)
    system.mark(places)
    system.fleet.restart(slot)


@fault("state lost")
def state_corrupted(system: System, rng: random.Random) -> None:
    """A worker is killed, and starts again on a state directory with flipped bytes in every file."""
    slot = rng.randrange(len(system.fleet.slots))
    worker = system.fleet.slots[slot]
    places = system.fleet.places(worker)
    system.fleet.kill(worker)
    flipped = 0
    for path in sorted(p for p in (system.directory / f"data{slot}").rglob("*") if p.is_file() and p.stat().st_size):
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 0xFF
        path.write_bytes(data)
        flipped += 1
    assert flipped, "there was no state to corrupt"
    system.mark(places)
    system.fleet.restart(slot)
