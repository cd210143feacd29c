"""Random histories of one job: `python -m tests.unit.streams.jobs.job_histories [COUNT] [FIRST SEED]` runs many.

Each depends only on its seed, so that a reported seed fails again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from random import Random
from typing import Any

from inferd.schemas.jobs.job import (
    CancelJob,
    CloseJob,
    JobRows,
    OpenJob,
    RetryJob,
    SubmitJob,
)
from inferd.schemas.requests.request import ModelReference
from tests.unit.streams.jobs.job_reference import TERMINAL, Job, expected
from tests.unit.streams.jobs.job_world import PARTITIONS, World, batch_of

COUNT = 100_000
_SLICE = 500


def messages_of(random: Random) -> list[Any]:
    """The messages of a job as they arrive: repeated, in any order, lost, contradicted."""
    sizes = [random.choice([0, 1, 2, 3, 5]) for _ in range(random.choice([0, 1, 2, 3, 4]))]
    rows = sum(sizes)
    opening = OpenJob(
        ModelReference("m"),
        row_count=random.choice([None, None, None, rows, rows, rows + 1]),
        chunk_rows=random.choice([None, None, 1, 3]),
        deadline_ms=random.choice([None, None, 1_500, 3_000]),
    )
    if random.random() < 0.15:
        messages: list[Any] = [SubmitJob(opening, batch_of(0, max(sizes, default=0), 0))]
    else:
        messages = [opening, *[JobRows(seq, batch_of(seq, size, 0)) for seq, size in enumerate(sizes)]]
        messages.append(CloseJob(len(sizes)))
    if random.random() < 0.2:
        del messages[random.randrange(len(messages))]
    for _ in range(random.choice([0, 0, 1, 2])):
        messages.insert(random.randint(0, len(messages)), random.choice([*messages, None]))
    if random.random() < 0.25:
        messages.insert(random.randint(0, len(messages)), _contradiction(random, sizes))
    if random.random() < 0.2:
        messages.insert(random.randint(len(messages) // 2, len(messages)), CancelJob())
    for _ in range(random.choice([0, 0, 0, 1, 2])):
        messages.append(RetryJob())
    if random.random() < 0.4:
        random.shuffle(messages)
    return messages


def _contradiction(random: Random, sizes: list[int]) -> Any:
    seq, other = random.randint(0, max(0, len(sizes) - 1)), random.randint(0, 4)
    return random.choice(
        [
            OpenJob(ModelReference("other")),
            JobRows(seq, batch_of(seq, 4, 1)),
            JobRows(other, batch_of(other, 2, 1)),
            CloseJob(random.randint(0, 5)),
            SubmitJob(OpenJob(ModelReference("m")), batch_of(0, 2, 1)),
            RetryJob(),
        ]
    )


def run(seed: int, *, codecs: bool = False) -> World:
    """Runs and checks one history; `AssertionError` if a check fails."""
    random = Random(seed)
    world = World(random, codecs)
    world.pin_fails = random.random() < 0.03
    _happen(world, messages_of(random))
    settle(world)
    if world.state is not None and not world.state.ended:
        world.now_ms += 8_000
        _happen(world, random.choice([[], [], [RetryJob()], [CancelJob()]]))
        settle(world)
    if world.state is not None:
        _finish(world)
    return world


def _finish(world: World) -> None:
    if world.random.random() < 0.3:
        _happen(world, [RetryJob(), world.random.choice([RetryJob(), CancelJob(), None])])
        settle(world)
    assert world.state is not None
    assert world.state.ended, "a job must end"
    world.now_ms += 60_000
    settle(world)
    assert world.state is not None
    assert world.state.phase == "expired"
    world.now_ms += 60_000
    settle(world)
    assert world.statuses[-1] is None, "no state is left"


def settle(world: World) -> None:
    """Runs until no more events are possible, and checks the result."""
    world.settle()
    check(world)


def _happen(world: World, messages: list[Any]) -> None:
    """Random actions until all messages have arrived, and for a while longer."""
    random = world.random
    left = messages[::-1]
    for act in random.choices(_ACTS, weights=_WEIGHTS, k=2 * len(messages) + random.randint(4, 20)):
        act(world, left, random.randrange(PARTITIONS))
    world.jobs += left[::-1]


def _write(world: World, left: list[Any]) -> None:
    if left:
        world.jobs.append(left.pop())


def _read_all(world: World) -> None:
    while world.read_jobs():
        pass


def _score_all(world: World, partition: int) -> None:
    while world.score(partition):
        pass


def _wait(world: World) -> None:
    world.now_ms += world.random.choice([1, 400, 1_100, 2_500])


ACTIONS: dict[str, tuple[int, Callable[[World, list[Any], int], object]]] = {
    "write": (5, lambda world, left, _: _write(world, left)),
    "read jobs": (6, lambda world, *_: world.read_jobs()),
    "read all jobs": (2, lambda world, *_: _read_all(world)),
    "read results": (4, lambda world, *_: world.read_results()),
    "run a timer tick": (3, lambda world, *_: world.tick_clock()),
    "save": (1, lambda world, *_: world.save()),
    "crash": (1, lambda world, *_: world.crash()),
    "score": (6, lambda world, _, partition: world.score(partition)),
    "score all": (1, lambda world, _, partition: _score_all(world, partition)),
    "save what is scored": (1, lambda world, _, partition: world.save_scored(partition)),
    "crash a scorer": (1, lambda world, _, partition: world.crash_scorer(partition)),
    "wait": (1, lambda world, *_: _wait(world)),
}
"""Events and their frequencies."""
_WEIGHTS = [weight for weight, _ in ACTIONS.values()]
_ACTS = [act for _, act in ACTIONS.values()]


def check(world: World) -> None:
    """The state equals the reference, and the published records agree with it, whichever process crashed."""
    job, state = expected(world.inputs, world.rules), world.state
    assert (job is None) == (state is None)
    assert world.late_results == 0, "a result after the cancel was acknowledged"
    terminal = world.terminal_statuses()
    assert all(len(values) == 1 for values in terminal.values()), "two different terminal statuses"
    if job is None or state is None:
        return
    assert (state.phase, state.attempt) == (job.status, job.attempt)
    figures = {"input_count": state.input_count, "succeeded": state.succeeded, "failed": state.failed}
    assert figures == job.figures()
    if state.ended:
        assert state.announced
        assert (state.attempt, state.phase == "expired") in terminal
        assert not state.retry_wanted
    if state.phase != "expired":
        _check_results(world, job)
    if state.missing is not None and state.phase == "incomplete":
        _check_missing(world, job)


def _check_results(world: World, job: Job) -> None:
    """Results read by the offsets in the state have one outcome for each row of each chunk, in the order of rows."""
    state = world.state
    assert state is not None
    read: list[tuple[int, int]] = []
    for chunk in state.chunks:
        first_row, rows, seq, start, at = (
            chunk[name].item() for name in ("first_row", "rows", "seq", "start", "result")
        )
        assert first_row == len(read)
        read += [(seq, start + place) for place in range(rows)]
        if at < 0:
            continue
        _, _, values, errors = world.results[at]
        assert len(values) == rows
        for place, value in enumerate(values):
            row = (seq, start + place)
            assert (value is None) == (place in errors) == (job.rows[row] is True)
            assert value is None or (value[0], value[1], value[3]) == (*row, state.version)
            assert value is None or batch_of(value[0], _size(world, seq), value[2]).digest == job.messages[seq]
    assert read == [row for row in sorted(job.rows) if row[0] in job.sent][: len(read)]
    if state.phase in ("completed", "completed_with_errors"):
        assert len(read) == state.input_count == state.processed
        assert state.chunks["done"].all()


def _size(world: World, seq: int) -> int:
    assert world.state is not None
    return int(world.state.messages[seq]["rows"])


def _check_missing(world: World, job: Job) -> None:
    state = world.state
    assert state is not None
    assert state.missing is not None
    wanted = range(job.message_count if job.message_count is not None else max(job.messages, default=-1) + 1)
    missing = [seq for first, last in state.missing.messages for seq in range(first, last + 1)]
    assert missing == [seq for seq in wanted if seq not in job.messages]
    assert state.missing.open == (job.opening is None)
    assert state.missing.close == (job.message_count is None)
    undone = [chunk for first, last in state.missing.chunks for chunk in range(first, last + 1)]
    assert undone == [place for place, chunk in enumerate(state.chunks) if not chunk["done"]]


def run_slice(first: int, count: int) -> dict[str, int]:
    """How often `count` histories, from seed `first`, reached each phase before expiry."""
    ends: dict[str, int] = {}
    for seed in range(first, first + count):
        try:
            world = run(seed)
        except Exception as error:
            raise AssertionError(f"history {seed}: {error!r}") from error
        phases = {str(status.status) for status in world.statuses if status is not None}
        for status in phases.intersection(TERMINAL) or {"none"}:
            ends[status] = ends.get(status, 0) + 1
    return ends


def main(arguments: list[str]) -> int:
    """Runs this many histories on two cores; returns 1 if one fails."""
    count, first = (int(a) for a in (*arguments, *(str(COUNT), "0")[len(arguments) :]))
    started = time.monotonic()
    total: dict[str, int] = {}
    with ProcessPoolExecutor(2) as pool:
        starts = range(first, first + count, _SLICE)
        slices = pool.map(run_slice, starts, [min(_SLICE, first + count - start) for start in starts])
        for ends in slices:
            for status, times in ends.items():
                total[status] = total.get(status, 0) + times
    print(f"{count} histories in {time.monotonic() - started:.0f} s: {dict(sorted(total.items()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
