"""Faults of the network between workers and broker, made by the proxy."""

from __future__ import annotations

import random

from tests.chaos.faults import Inject, fault
from tests.chaos.proxy import COMMITS, PRODUCE
from tests.chaos.system import System
from tests.fixtures.workers import until

REPLY_LOST_WITHIN_S = 20.0


@fault("network", bears_kills=True)
def latency(system: System, rng: random.Random) -> None:
    """Delays each frame."""
    system.proxy.latency_s = rng.uniform(0.05, 0.25)
    try:
        system.run_on(2 if system.brief else rng.uniform(4, 10))
    finally:
        system.proxy.heal()
        system.mark()


@fault("network", bears_kills=True)
def reset(system: System, rng: random.Random) -> None:
    """Connections end with RST, several times."""
    for _ in range(rng.randint(1, 3)):
        system.proxy.reset()
        system.run_on(rng.uniform(0, 0.5))
    system.mark()


@fault("network", recovers_within_s=90.0)
def half_open(system: System, rng: random.Random) -> None:
    """Drops all sent bytes, while connections stay open."""
    system.proxy.swallows = True
    try:
        system.run_on(3 if system.brief else rng.uniform(4, 25))
    finally:
        system.proxy.heal()
        system.mark()


@fault("network", recovers_within_s=90.0)
def partition(system: System, rng: random.Random) -> None:
    """Partitions the network; bytes that were sent are delivered when it heals."""
    system.proxy.hold()
    try:
        system.run_on(3 if system.brief else rng.uniform(4, 25))
    finally:
        system.proxy.heal()
        system.mark()


def _lost_reply(name: str, api_keys: tuple[int, ...], what: str) -> Inject:
    def inject(system: System, rng: random.Random) -> None:
        before = system.proxy.lost_replies.total()
        system.proxy.lose_replies(api_keys, rng.randint(1, 3))
        until(lambda: system.proxy.lost_replies.total() > before, REPLY_LOST_WITHIN_S, f"a lost reply to {what}")
        system.mark()
        system.run_on(0.5)
        system.count("lost replies", system.proxy.lost_replies.total() - before)

    inject.__name__ = name
    inject.__doc__ = f"The broker has done {what}, and its reply is lost with the connection."
    return fault("network", bears_kills=True)(inject)


_lost_reply("lost_commit_reply", COMMITS, "a commit")
_lost_reply("lost_produce_reply", (PRODUCE,), "a produce")
