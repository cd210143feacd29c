"""The network of a cluster on this machine, made of relays, so that a node can be isolated without being root.

Each way from one node to another has an address of its own: node 1 reaches node 2 at 127.0.11.2, and clients reach it
at 127.0.10.2, with the ports of node 2. A node finds the addresses in a file of hosts for its Java process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

HOST = "127.0.0.1"
CLIENTS = 0
"""In the place of a node's number: everybody else."""
Way = tuple[int, int]
"""From the node that connects (or `CLIENTS`) to another."""


DONE = "done\n"
"""The answer of the relays to each line."""


def address(way: Way) -> str:
    """The loopback address at which the first of a way reaches the second."""
    start, end = way
    return f"127.0.{10 + start}.{end}"


def name(node: int) -> str:
    """Host name of a node, which each node resolves to the address for itself."""
    return f"node-{node}"


@dataclass(frozen=True)
class Ports:
    """The ports of a node, the same at all of its addresses."""

    clients: int
    nodes: int
    controller: int


class Network:
    """Relays connections between nodes, and from clients to nodes; cuts and heals ways, in both directions.

    The relays have a process of their own, so that they never wait for the threads of the tests.
    """

    def __init__(self, ports: Mapping[int, Ports]) -> None:
        self.ports = ports
        self._process: subprocess.Popen[str]

    @property
    def ways(self) -> list[Way]:
        return [(start, end) for start in (CLIENTS, *self.ports) for end in self.ports if start != end]

    def hosts(self, node: int) -> str:
        """Text of the file of hosts of a node."""
        others = "".join(f"{address((node, other))} {name(other)}\n" for other in self.ports if other != node)
        return f"{HOST} {name(node)} localhost\n{others}"

    def start(self) -> None:
        listen = [(way, port) for way in self.ways for port in self._ports_of(way)]
        command = [sys.executable, "-m", "tests.chaos.network", json.dumps(listen)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._confirmed()

    def stop(self) -> None:
        self._process.communicate()

    def isolate(self, node: int, *, from_clients: bool = True) -> None:
        """Cuts a node off from the others: bytes wait until `heal`, and so do new connections."""
        self._cut([way for way in self.ways if node in way and (from_clients or CLIENTS not in way)])

    def heal(self) -> None:
        """Delivers what has waited; everything passes again."""
        self._cut([])

    def _ports_of(self, way: Way) -> tuple[int, ...]:
        ports = self.ports[way[1]]
        return (ports.clients,) if way[0] == CLIENTS else (ports.nodes, ports.controller)

    def _cut(self, ways: Sequence[Way]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(ways) + "\n")
        self._process.stdin.flush()
        self._confirmed()

    def _confirmed(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == DONE, "the relays have ended"


class Relays:
    """What runs in the process of the relays."""

    def __init__(self) -> None:
        self._cut: frozenset[Way] = frozenset()
        self._sides: set[_Side] = set()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listen: Iterable[tuple[Way, int]]) -> None:
        """Follows lines of standard input, each with all ways that are cut from now on, until its end."""
        loop = asyncio.get_running_loop()
        for way, port in listen:
            await loop.create_server(partial(self._accepted, way, port), address(way), port)
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        print(end=DONE, flush=True)
        while line := await lines.readline():
            self._set(tuple(way) for way in json.loads(line))
            print(end=DONE, flush=True)

    def passes(self, way: Way) -> bool:
        return way not in self._cut

    def opened(self, side: _Side) -> None:
        self._sides.add(side)

    def closed(self, side: _Side) -> None:
        self._sides.discard(side)

    def _set(self, cut: Iterable[Way]) -> None:
        self._cut = frozenset(cut)
        self._changed.set()
        self._changed = asyncio.Event()
        for side in self._sides:
            side.settle()

    def _accepted(self, way: Way, port: int) -> _Side:
        side = _Side(self, way)
        task = asyncio.get_running_loop().create_task(self._connect(side, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return side

    async def _connect(self, side: _Side, port: int) -> None:
        """Connects to the node as soon as the way is open."""
        while not self.passes(side.way):
            await self._changed.wait()
        try:
            await asyncio.get_running_loop().create_connection(side.paired, HOST, port)
        except OSError:
            side.close()


class _Side(asyncio.Protocol):
    """One of the two connections of a relay. It reads only while the way is open and the other side takes more."""

    def __init__(self, relays: Relays, way: Way) -> None:
        self.way = way
        self._relays = relays
        self._other: _Side | None = None
        self._transport: asyncio.Transport | None = None
        self._full = False
        """Whether what it writes is not taken."""

    def paired(self) -> _Side:
        """The side towards the node."""
        other = _Side(self._relays, self.way)
        self._other, other._other = other, self
        return other

    def settle(self) -> None:
        """Starts or stops reading."""
        if self._transport is None or self._transport.is_closing():
            return
        other = self._other
        if other is not None and other._transport is not None and not other._full and self._relays.passes(self.way):
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._relays.opened(self)
        self.settle()
        if self._other is not None:
            if self._other._transport is None or self._other._transport.is_closing():
                self._transport.abort()
            self._other.settle()

    def data_received(self, data: bytes) -> None:
        assert self._other is not None
        assert self._other._transport is not None
        self._other._transport.write(data)

    def pause_writing(self) -> None:
        self._full = True
        if self._other is not None:
            self._other.settle()

    def resume_writing(self) -> None:
        self._full = False
        if self._other is not None:
            self._other.settle()

    def connection_lost(self, _error: Exception | None) -> None:
        self._relays.closed(self)
        if self._other is not None and self._other._transport is not None:
            self._other._transport.close()


if __name__ == "__main__":
    # uvloop reads at once, whatever a protocol says when it is connected.
    asyncio.run(Relays().serve((tuple(way), port) for way, port in json.loads(sys.argv[1])))
