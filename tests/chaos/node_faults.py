"""Faults of one node of a cluster: killed, stopped, frozen, isolated, without room on its disk; and elections."""

from __future__ import annotations

import os
import random
import resource
import signal

from confluent_kafka import ElectionType, TopicPartition

from tests.chaos.broker import ClusterKafka, PartedKafka
from tests.chaos.broker_faults import all_live
from tests.chaos.faults import fault
from tests.chaos.ledger import PARTITIONS
from tests.chaos.network import Network
from tests.chaos.system import System
from tests.fixtures.workers import until

FROZEN_S = 12.0
"""Longer than the session of a broker: the others elect leaders without it."""
ROOM_BYTES = 16_384
ENDS_WITHIN_S = 40.0
GOES_ON_WITHIN_S = 90.0
"""Until the others have elected leaders, and every partition is answered."""


@fault("nodes", recovers_within_s=90.0, bears_kills=True)
def node_kill(system: System, rng: random.Random) -> None:
    """SIGKILL of a node, which comes back after a while with its data."""
    node = _node(system, rng)
    node.kill()
    _comes_back(system, rng, node)


@fault("nodes", recovers_within_s=90.0, bears_kills=True)
def node_stop(system: System, rng: random.Random) -> None:
    """A graceful stop of a node, which comes back after a while."""
    node = _node(system, rng)
    node.stop()
    _comes_back(system, rng, node)


@fault("nodes", recovers_within_s=90.0, bears_kills=True)
def node_freeze(system: System, rng: random.Random) -> None:
    """SIGSTOP of a node for longer than its session: it comes back with an old view of the cluster."""
    pid = _node(system, rng).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        system.run_on(FROZEN_S)
        all_live(system)
    finally:
        os.kill(pid, signal.SIGCONT)
    _returned(system)


@fault("nodes", recovers_within_s=90.0)
def node_disk_full(system: System, rng: random.Random) -> None:
    """A node cannot write to its disk any more, and ends; it comes back once there is room."""
    node = _node(system, rng)
    pid = node.pid
    assert pid is not None
    # Without being root: files of the process cannot grow beyond a size that they already have.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM_BYTES, resource.RLIM_INFINITY))
    until(lambda: node.wait(0) is not None, ENDS_WITHIN_S, "a node without room ends")
    _comes_back(system, rng, node)


@fault("nodes", recovers_within_s=60.0, bears_kills=True)
def leader_elections(system: System, rng: random.Random) -> None:
    """A node is stopped and comes back, and the leaders of all partitions are elected anew: some move to it."""
    node = _node(system, rng)
    node.stop()
    node.start()
    system.mark()
    for stream in ("requests", "results"):
        asked = [TopicPartition(topic, n) for topic in system.topics(stream) for n in range(PARTITIONS)]
        admin = system.admin  # it must outlive its request
        admin.elect_leaders(ElectionType.PREFERRED, asked).result(60)
        system.count("partitions whose leaders were elected", len(asked))
        system.run_on(1)


@fault("nodes", recovers_within_s=90.0, bears_kills=True)
def node_isolated(system: System, rng: random.Random) -> None:
    """Nothing passes between a node and the others or any client: the others elect leaders without it."""
    network, node = _network(system), _node(system, rng)
    network.isolate(node.number)
    try:
        _absent(system, rng)
    finally:
        network.heal()
    _returned(system)


@fault("nodes", recovers_within_s=90.0, bears_kills=True)
def node_cut_off(system: System, rng: random.Random) -> None:
    """Nothing passes between a node and the others, but clients reach it, and it believes that it leads."""
    network, node = _network(system), _node(system, rng)
    network.isolate(node.number, from_clients=False)
    try:
        system.run_on(FROZEN_S)
        all_live(system)
    finally:
        network.heal()
    _returned(system)


def _network(system: System) -> Network:
    assert isinstance(system.kafka, ClusterKafka), "it has no nodes"
    return system.kafka.network


def _node(system: System, rng: random.Random) -> PartedKafka:
    assert isinstance(system.kafka, ClusterKafka), "it has no nodes"
    return rng.choice(system.kafka.nodes)


def _comes_back(system: System, rng: random.Random, node: PartedKafka) -> None:
    """Waits while a node is away, and starts it again."""
    _absent(system, rng)
    node.start()
    _returned(system)


def _absent(system: System, rng: random.Random) -> None:
    """The others go on: records are answered, with one node fewer."""
    watch = system.mark()
    system.run_on(rng.uniform(1, 3) if system.brief else rng.uniform(5, 15))
    all_live(system)
    until(lambda: watch.complete, GOES_ON_WITHIN_S, "answers of all partitions while a node is absent")


def _returned(system: System) -> None:
    system.count("nodes that were absent")
    system.mark()
