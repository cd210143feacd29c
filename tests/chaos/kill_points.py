"""Points in the processing of a micro-batch at which a worker kills itself with SIGKILL, on request.

In the worker: `install` wraps the functions, and SIGUSR2 reads `CHAOS_SWITCH`, a file that says `<point> <passages>`.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

SWITCH = "CHAOS_SWITCH"
POINTS = ("after_decode", "after_predict", "after_produce", "before_commit", "after_commit")
_armed: dict[str, int] = {}


def arm(pid: int, switch: Path, point: str, passages: int) -> None:
    """Makes a running worker kill itself after passing `point` this many times."""
    assert point in POINTS
    unfinished = switch.with_suffix(".unfinished")
    unfinished.write_text(f"{point} {passages}")
    unfinished.replace(switch)
    os.kill(pid, signal.SIGUSR2)


def install() -> None:
    """Wraps the points in this process."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    from inferd.streams.inference.scoring import Scorer
    from inferd.streams.lane import at_least_once, exactly_once
    from inferd.streams.lane.publisher import Publisher

    signal.signal(signal.SIGUSR2, _read_switch)
    _wrap(Scorer, "prepare", after="after_decode")
    _wrap(Publisher, "publish", before="after_predict")
    for guarantee in (at_least_once, exactly_once):
        _wrap(guarantee, "produce", after="after_produce")
    for owner, name in ((AIOKafkaConsumer, "commit"), (AIOKafkaProducer, "commit_transaction")):
        _wrap(owner, name, before="before_commit", after="after_commit")


def _read_switch(*_: object) -> None:
    point, passages = Path(os.environ[SWITCH]).read_text().split()
    _armed[point] = int(passages)


def _passed(point: str | None) -> None:
    if point in _armed:
        _armed[point] -= 1
        if _armed[point] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _wrap(owner: Any, name: str, *, before: str | None = None, after: str | None = None) -> None:
    inner: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(inner)
    def called(*args: Any, **options: Any) -> Any:
        _passed(before)
        result = inner(*args, **options)
        _passed(after)
        return result

    @functools.wraps(inner)
    async def awaited(*args: Any, **options: Any) -> Any:
        _passed(before)
        result = await inner(*args, **options)
        _passed(after)
        return result

    setattr(owner, name, awaited if inspect.iscoroutinefunction(inner) else called)
