"""A TCP proxy between workers and a broker that parses Kafka's frames: it can delay, drop and truncate them, and close
connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Collection

OFFSET_COMMIT, END_TXN, TXN_OFFSET_COMMIT, PRODUCE = 8, 26, 28, 0
COMMITS = (OFFSET_COMMIT, END_TXN, TXN_OFFSET_COMMIT)
"""API keys of Kafka requests whose response confirms a commit."""
HOST = "127.0.0.1"
HELD_POLL_S, HELD_S_MAX = 0.02, 60.0
Queue = asyncio.Queue[tuple[float, bytes]]
_NO_LINGER = struct.pack("ii", 1, 0)
_SIZE, _REQUEST, _CORRELATION = struct.Struct(">i"), struct.Struct(">hhi"), struct.Struct(">i")


class Proxy:
    """Relays connections to a port of this machine, in a thread with its own event loop. Faults are set through
    attributes."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port, self.target_port = port, target_port
        self.latency_s = 0.0
        """How much later each frame arrives, in either direction."""
        self.swallows = False
        """Whether frames vanish while connections stay open."""
        self.swallowed_requests: frozenset[int] = frozenset()
        """API keys of requests that are dropped, with everything that follows on the connection, because replies are in
        order."""
        self.held_requests: frozenset[int] = frozenset()
        """API keys of requests that are held until `heal`, even if their client has disconnected in the meantime."""
        self.lost_replies: Counter[int] = Counter()
        """Number of lost responses since the start, by API key."""
        self.resets = 0
        self.links: set[_Link] = set()
        self.flows = asyncio.Event()
        self._to_lose: Counter[int] = Counter()
        self._stopping = asyncio.Event()
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(10), f"the proxy does not listen on {self.address}"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def hold(self) -> None:
        """Holds all bytes, as in a network partition; `heal` delivers those that were sent."""
        self._loop.call_soon_threadsafe(self.flows.clear)

    def heal(self) -> None:
        """Ends all faults, and closes the connections in which bytes were dropped."""
        self.latency_s, self.swallows = 0.0, False
        self.swallowed_requests = self.held_requests = frozenset()
        self._to_lose.clear()
        self._call(lambda: _reset({link for link in self.links if link.has_swallowed}))
        self._loop.call_soon_threadsafe(self.flows.set)

    def reset(self) -> None:
        """Every connection ends with RST."""
        self.resets += len(self.links)
        self._call(lambda: _reset(self.links))

    def lose_replies(self, api_keys: Collection[int], count: int) -> None:
        """Drops the next `count` responses to each of these requests, and closes their connections: the broker has
        processed them."""
        self._to_lose = Counter(dict.fromkeys(api_keys, count))

    def loses(self, api_key: int) -> bool:
        """Whether this reply is to be lost; counts it."""
        if not self._to_lose[api_key]:
            return False
        self._to_lose[api_key] -= 1
        self.lost_replies[api_key] += 1
        return True

    def _call(self, what: Callable[[], object]) -> None:
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(10), "the proxy hangs"

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.flows.set()
        server = await asyncio.start_server(self._connected, HOST, self.port)
        self._listening.set()
        await self._stopping.wait()
        server.close()
        _reset(self.links)
        while self.links:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self.links.add(link)
        try:
            await link.relay()
        finally:
            self.links.discard(link)
            link.reset()


def _api_key(frame: bytes) -> int:
    """Of a request with its size in front."""
    return int.from_bytes(frame[4:6], "big")


def _reset(links: Collection[_Link]) -> None:
    for link in list(links):
        link.reset()


class _Link:
    """One connection of a client, and the one to the broker that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.has_swallowed = self.holds = False
        self._requests: Queue = Queue()
        self._proxy, self._reader, self._writers = proxy, reader, [writer]
        self._asked: dict[int, int] = {}
        """API key by correlation id."""

    async def relay(self) -> None:
        """Until either side ends, or a fault does."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self._proxy.target_port)
        except OSError:
            return
        self._writers.append(writer)
        tasks = set()
        ways = ((self._reader, writer, self._requests, self._request), (reader, self._writers[0], Queue(), self._reply))
        for source, sink, queue, passes in ways:
            tasks |= {asyncio.create_task(self._read(source, queue, passes))}
            tasks |= {asyncio.create_task(self._write(sink, queue))}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if self.holds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._requests.join(), HELD_S_MAX)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(
        self,
        source: asyncio.StreamReader,
        queue: Queue,
        passes: Callable[[bytes], bool | None],
    ) -> None:
        """`passes` says whether a frame is relayed (True), dropped (None), or closes the connection (False)."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, EOFError):
            while True:
                size = await source.readexactly(4)
                frame = await source.readexactly(_SIZE.unpack(size)[0])
                goes_on = None if self._proxy.swallows else passes(frame)
                if goes_on:
                    queue.put_nowait((loop.time() + self._proxy.latency_s, size + frame))
                elif goes_on is None:
                    self.has_swallowed = True
                else:
                    return

    async def _write(self, sink: asyncio.StreamWriter, queue: Queue) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, frame = await queue.get()
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._proxy.flows.wait()
            while sink is not self._writers[0] and _api_key(frame) in self._proxy.held_requests:
                self.holds = True
                await asyncio.sleep(HELD_POLL_S)
            sink.write(frame)
            with contextlib.suppress(OSError):
                await sink.drain()
            queue.task_done()

    def _request(self, frame: bytes) -> bool | None:
        api_key, _version, correlation = _REQUEST.unpack_from(frame)
        if self.has_swallowed or api_key in self._proxy.swallowed_requests:
            return None
        self._asked[correlation] = api_key
        return True

    def _reply(self, frame: bytes) -> bool | None:
        (correlation,) = _CORRELATION.unpack_from(frame)
        api_key = self._asked.pop(correlation, None)
        if api_key is not None and self._proxy.loses(api_key):
            self.reset()
            return False
        return True

    def reset(self) -> None:
        for writer in self._writers:
            if not writer.transport.is_closing():
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                writer.transport.abort()
