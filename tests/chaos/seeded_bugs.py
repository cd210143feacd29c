"""Seeded bugs: each is patched into a worker's process, one at a time, and the battery must detect it.

Each bug patches as few names as possible, and lists the faults that reveal it. When tables exist, "lost tombstone" and
"changes applied before they are committed" belong here.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

BUG = "CHAOS_BUG"
"""The variable that names the bug a worker is started with."""
AT_LEAST_ONCE, EXACTLY_ONCE = "at_least_once", "exactly_once"
SMALL_BATCH_BYTES = 1_024
FENCE_DELAY_S = 4.0


@dataclass(frozen=True)
class Bug:
    """A wrong behaviour, the guarantee that it breaks, and the faults that reveal it."""

    name: str
    guarantee: str
    shows_as: str
    """The failure that the ledger must count: a field of `Balance`; or `rollouts`, which their faults check."""
    faults: tuple[str, ...]
    """Run one after the other; empty if the load alone reveals it."""
    apply: Callable[[], None]
    routed: bool = False
    """Whether it is about routes."""

    @property
    def what(self) -> str:
        return " ".join((self.apply.__doc__ or "").split())


BUGS: dict[str, Bug] = {}


def bug(
    guarantee: str, shows_as: str, *faults: str, routed: bool = False
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enters the decorated patch as a bug."""

    def enter(apply: Callable[[], None]) -> Callable[[], None]:
        BUGS[apply.__name__] = Bug(apply.__name__, guarantee, shows_as, faults, apply, routed)
        return apply

    return enter


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replaces `owner.name` by a function whose first argument is the original one."""
    inner = getattr(owner, name)
    setattr(owner, name, functools.wraps(inner)(functools.partial(around, inner)))


def _wrap_method(owner: type, name: str, around: Callable[..., Any]) -> None:
    inner = getattr(owner, name)

    def method(self: Any, *args: Any, **options: Any) -> Any:
        return around(inner, self, *args, **options)

    setattr(owner, name, method)


def _change_output(change: Callable[[dict[tuple[str, int], list[Any]]], None]) -> None:
    """Passes all published records to `change` first, under either guarantee."""
    from inferd.streams.lane.at_least_once import AtLeastOnce
    from inferd.streams.lane.exactly_once import ExactlyOnce

    def publish(inner: Any, self: Any, partition: Any, output: Any, *rest: Any) -> Any:
        output.by_topic = {place: list(records) for place, records in output.by_topic.items()}  # some are blocks
        change(output.by_topic)
        return inner(self, partition, output, *rest)

    for guarantee in (AtLeastOnce, ExactlyOnce):
        _wrap_method(guarantee, "publish", publish)


def _change_commits(change: Callable[[dict[Any, Any]], dict[Any, Any]]) -> None:
    """Offsets go through `change` before they are committed, with or without a transaction."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    _wrap_method(AIOKafkaConsumer, "commit", lambda inner, self, offsets: inner(self, change(offsets)))
    _wrap_method(
        AIOKafkaProducer,
        "send_offsets_to_transaction",
        lambda inner, self, offsets, group: inner(self, change(offsets), group),
    )


def _no_watchdog() -> None:
    from inferd.daemon.supervision.watchdog import Watchdog

    setattr(Watchdog, "arm", lambda self: None)  # noqa: B010


# ---------------------------------------------------------------------- offsets


@bug(AT_LEAST_ONCE, "lost", "results_unacknowledged_then_kill")
def commit_before_acknowledgement() -> None:
    """Commits the offsets of taken records, although their results are not acknowledged."""
    from inferd.streams.lane.at_least_once import AtLeastOnce

    taken: dict[Any, int] = {}

    def commit(inner: Any, self: Any, consumer: Any, partitions: Any) -> Any:
        taken.update({partition.tp: partition.next_take for partition in partitions})
        return inner(self, consumer, partitions)

    _wrap_method(AtLeastOnce, "commit", commit)
    _change_commits(lambda offsets: {tp: o._replace(offset=taken.get(tp, o.offset)) for tp, o in offsets.items()})


@bug(AT_LEAST_ONCE, "lost", "kill_at_random")
def off_by_one() -> None:
    """Commits one offset too many."""
    _change_commits(lambda offsets: {tp: o._replace(offset=o.offset + 1) for tp, o in offsets.items()})


@bug(EXACTLY_ONCE, "repeated", "kill_at_random")
def off_by_one_in_transactions() -> None:
    """Commits one offset too few with each transaction."""
    _change_commits(lambda offsets: {tp: o._replace(offset=o.offset - 1) for tp, o in offsets.items()})


@bug(AT_LEAST_ONCE, "lost", "kill_at_random", "kill_at_random")
def commit_of_the_maximum() -> None:
    """Commits the highest acknowledged offset for every partition."""

    def highest(offsets: dict[Any, Any]) -> dict[Any, Any]:
        top = max(offset.offset for offset in offsets.values())
        return {tp: offset._replace(offset=top) for tp, offset in offsets.items()}

    _change_commits(highest)


@bug(EXACTLY_ONCE, "repeated", "kill_at_random")
def transaction_without_offsets() -> None:
    """Commits results without the offsets of their requests."""
    from aiokafka import AIOKafkaProducer

    async def send(*_: object) -> None: ...

    setattr(AIOKafkaProducer, "send_offsets_to_transaction", send)  # noqa: B010


@bug(AT_LEAST_ONCE, "lost", "rebalance_while_unacknowledged")
def dropped_on_revoke() -> None:
    """On revocation, commits the offsets of all fetched records."""
    from inferd.streams.lane.at_least_once import AtLeastOnce

    def commit(inner: Any, self: Any, consumer: Any, partitions: Any) -> Any:
        for partition in partitions:
            if not partition.running:
                partition.next_take = partition.next_publish = partition.acked = partition.next_fetch
        return inner(self, consumer, partitions)

    _wrap_method(AtLeastOnce, "commit", commit)


@bug(AT_LEAST_ONCE, "lost", "results_refused")
def dropped_on_rewind() -> None:
    """After a failed publish, continues after the in-flight records."""
    from inferd.streams.lane.partition import Partition

    def rewind(inner: Any, self: Any) -> Any:
        self.acked = self.next_take
        return inner(self)

    _wrap_method(Partition, "rewind", rewind)


@bug(AT_LEAST_ONCE, "lost", "results_refused")
def gap_not_sought_back() -> None:
    """After a failure, processes the next fetch without seeking back."""
    from inferd.streams.faust_app import FaustGroup
    from inferd.streams.lane.partition import Partition

    async def seek(*_: object) -> None: ...

    def offer(inner: Any, self: Any, records: Any) -> Any:
        self.suspect = False
        return inner(self, records)

    setattr(FaustGroup, "seek", seek)  # noqa: B010
    _wrap_method(Partition, "offer", offer)


@bug(AT_LEAST_ONCE, "lost", "retention")
def gap_not_named() -> None:
    """Does not report records that retention deleted."""
    from inferd.streams.lane import assignment as takeover

    async def read(inner: Any, *args: Any) -> Any:
        return {tp: replace(position, missing=0) for tp, position in (await inner(*args)).items()}

    _wrap(takeover, "read_positions", read)


# ---------------------------------------------------------------------- publishing


@bug(AT_LEAST_ONCE, "lost", "results_refused")
def ignored_failed_send() -> None:
    """Treats a batch that the broker rejected as acknowledged."""
    from inferd.streams.lane import at_least_once

    async def produce(inner: Any, *args: Any) -> list[asyncio.Future[Any]]:
        return [asyncio.ensure_future(_settled(future)) for future in await inner(*args)]

    _wrap(at_least_once, "produce", produce)


async def _settled(future: asyncio.Future[Any]) -> Any:
    try:
        return await future
    except Exception:  # noqa: BLE001
        return None


@bug(AT_LEAST_ONCE, "lost", "broker_freeze")
def full_batch_ignored() -> None:
    """Loses the records that do not fit into a batch."""
    from inferd.streams.kafka import producer as publish

    def fill(_: Any, append: Any, records: Any, __: int, timestamp_ms: int) -> int:
        for key, value, headers in records:
            append(timestamp=timestamp_ms, key=key, value=value, headers=headers)
        return len(records)

    publish.BATCH_BYTES_MAX = SMALL_BATCH_BYTES
    _wrap(publish, "_fill", fill)


@bug(AT_LEAST_ONCE, "out_of_order")
def out_of_order() -> None:
    """Publishes the results of a micro-batch in reverse."""

    def reverse(by_topic: dict[tuple[str, int], list[Any]]) -> None:
        for records in by_topic.values():
            records.reverse()

    _change_output(reverse)


@bug(EXACTLY_ONCE, "repeated")
def published_twice() -> None:
    """Publishes each result twice."""

    def double(by_topic: dict[tuple[str, int], list[Any]]) -> None:
        for records in by_topic.values():
            records.extend([*records])

    _change_output(double)


@bug(AT_LEAST_ONCE, "wrong")
def mixed_up_keys() -> None:
    """Answers a request with the result of another record of its micro-batch."""

    def mix(by_topic: dict[tuple[str, int], list[Any]]) -> None:
        for records in by_topic.values():
            keys = [key for key, *_ in records]
            records[:] = [(key, *rest) for key, (_, *rest) in zip(keys[1:] + keys[:1], records, strict=True)]

    _change_output(mix)


@bug(AT_LEAST_ONCE, "lost")
def poison_swallows_its_neighbour() -> None:
    """Loses the last result of a micro-batch that has a poison record."""

    def swallow(by_topic: dict[tuple[str, int], list[Any]]) -> None:
        if any(topic.endswith("dead-letters") for topic, _ in by_topic):
            for (topic, _), records in by_topic.items():
                if topic.endswith("results"):
                    records.pop()

    _change_output(swallow)


@bug(AT_LEAST_ONCE, "letters_lost")
def no_dead_letter() -> None:
    """Answers poison records without writing their dead letters."""

    def drop(by_topic: dict[tuple[str, int], list[Any]]) -> None:
        for place in [place for place in by_topic if place[0].endswith("dead-letters")]:
            del by_topic[place]

    _change_output(drop)


# ---------------------------------------------------------------------- isolation


@bug(AT_LEAST_ONCE, "uninvited")
def read_uncommitted() -> None:
    """Answers requests of aborted transactions."""
    from inferd.streams.group.consumer import LoopConsumerThread

    def create(inner: Any, self: Any, transport: Any) -> Any:
        consumer = inner(self, transport)
        consumer._isolation_level = "read_uncommitted"
        return consumer

    _wrap_method(LoopConsumerThread, "_create_worker_consumer", create)


@bug(EXACTLY_ONCE, "repeated", "zombie", "zombie")
def no_fencing() -> None:
    """Gives each producer a unique transactional id, and disables the detection of a frozen event loop."""
    from inferd.streams.lane import exactly_once

    def open_producer(inner: Any, *args: Any, **options: Any) -> Any:
        if "transactional_id" in options:
            options["transactional_id"] += f"-{random.getrandbits(64):x}"
        return inner(*args, **options)

    _wrap(exactly_once, "open_producer", open_producer)
    _no_watchdog()


@bug(EXACTLY_ONCE, "repeated", "late_commit")
def positions_read_before_fencing() -> None:
    """Reads positions, and fences the earlier owner some seconds later."""
    from inferd.streams.lane import assignment as takeover
    from inferd.streams.lane.exactly_once import ExactlyOnce

    pending: list[Callable[[], Any]] = []

    async def fence(inner: Any, self: Any, outputs: Any) -> None:
        pending[:] = [lambda: inner(self, outputs)]

    async def read(inner: Any, *args: Any) -> Any:
        positions = await inner(*args)
        await asyncio.sleep(FENCE_DELAY_S)
        while pending:
            await pending.pop()()
        return positions

    _wrap_method(ExactlyOnce, "fence", fence)
    _wrap(takeover, "read_positions", read)


# ---------------------------------------------------------------------- partitions that are added


@bug(EXACTLY_ONCE, "job_rows_lost", "grow")
def states_stay_behind() -> None:
    """Takes a new partition for filled, and leaves the states of its jobs in the older one."""
    from inferd.streams.lane.handover import Handover

    async def moving(*_: object) -> list[Any]:
        return []

    setattr(Handover, "_moving", moving)  # noqa: B010


# ---------------------------------------------------------------------- routes


@bug(AT_LEAST_ONCE, "lost", routed=True)
def route_swallows_invalid_records() -> None:
    """Commits past records of a route that cannot be scored, and writes nothing for them."""
    from inferd.streams.routes.output import RouteOutput

    def add(inner: Any, self: Any, record: Any, outcome: Any, index: int) -> None:
        if index not in outcome.failures:
            inner(self, record, outcome, index)

    _wrap_method(RouteOutput, "_add", add)


@bug(AT_LEAST_ONCE, "wrong", routed=True)
def route_mixes_up_values() -> None:
    """Writes the value of another record of the micro-batch."""
    from inferd.streams.routes.output import RouteOutput

    def add_all(inner: Any, self: Any, records: Any, values: Any) -> Any:
        return inner(self, records, [*values[1:], *values[:1]])

    _wrap_method(RouteOutput, "_add_all", add_all)


# ---------------------------------------------------------------------- rollouts


@bug(AT_LEAST_ONCE, "rollouts", "bad_rollout")
def rollout_forgets_its_breach() -> None:
    """Returns the alias after a breach, and does not store the breach."""
    from inferd.streams.rollouts import processor

    def finish(inner: Any, self: Any) -> Any:
        for model_id, status in list(self.changed.items()):
            if status.rollout is not None and status.rollout.breach is not None:
                del self.changed[model_id]
        return inner(self)

    _wrap_method(processor._Draft, "finish", finish)


@bug(AT_LEAST_ONCE, "rollouts", "superseded_rollout")
def rollout_overwrites_others() -> None:
    """Takes every change of the alias for its own."""
    from inferd.streams.rollouts import transitions

    setattr(transitions, "_is_ours", lambda rollout, alias: True)  # noqa: B010


@bug(AT_LEAST_ONCE, "rollouts", "drifting_rollout")
def rollout_ignores_predictions() -> None:
    """Measures no distance of predictions."""
    from inferd.streams.rollouts import measuring

    setattr(measuring, "_psi", lambda expected, actual: None)  # noqa: B010


@bug(AT_LEAST_ONCE, "rollouts", "slow_rollout")
def rollout_ignores_latency() -> None:
    """Measures no latencies."""
    from inferd.streams.rollouts import measuring

    setattr(measuring, "latency_quantile_ms", lambda counts, quantile: None)  # noqa: B010


@bug(AT_LEAST_ONCE, "rollouts", "raising_rollout")
def rollout_moves_again_with_a_new_owner() -> None:
    """Writes the last change of the alias again after a takeover, as a new revision."""

    from inferd.streams.rollouts import processor, transitions

    fresh: set[str] = set()

    async def opened(inner: Any, self: Any, number: int) -> None:
        await inner(self, number)
        fresh.update(status.rollout.id for status in self.owned.live() if status.rollout is not None)

    def then(inner: Any, before: Any, seen: Any, after: Any, now_ms: int, alias: Any) -> Any:
        if after.id in fresh and after.move is not None and after.move.seen:
            fresh.discard(after.id)
            return transitions._moved(after, now_ms, alias, dict(seen.records))
        return inner(before, seen, after, now_ms, alias)

    _wrap_method(processor.RolloutProcessor, "opened", opened)
    _wrap(transitions, "_then", then)
