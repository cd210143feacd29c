"""A worker with fake streams, for tests that send signals to a real process.

Runs as `python -m tests.unit.daemon.worker_child BEHAVIOUR`; settings come from the environment. Prints
`listening URL`, `started` and `stopping`. The broker is faked as reachable, except for the behaviour `wait`.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import time
from collections.abc import Callable

from inferd.daemon import cluster
from inferd.daemon.cluster import BrokerAnswer
from inferd.daemon.process import Parts, run_worker
from inferd.daemon.settings.checks import check_worker
from inferd.daemon.settings.settings import Settings
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ServerError
from inferd.streams.serving.user_code import UserCode
from inferd.streams.settings import StreamSettings
from tests.unit.daemon.fake_streams import FakeStreams


class ScriptedStreams(FakeStreams):
    """Streams that behave as the first argument says."""

    def __init__(
        self, settings: StreamSettings, on_fatal: Callable[[str, int], None], _custom: UserCode | None
    ) -> None:
        super().__init__(settings, on_fatal)
        self.behaviour = sys.argv[1]
        if self.behaviour == "refused":
            raise ServerError("exactly_once is not offered")

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        match self.behaviour:
            case "mismatch":
                raise ServerError("topic inferd.default.requests has 3 partitions, not 4")
            case "bug":
                raise ZeroDivisionError
            case "hang":
                loop.call_later(0.5, time.sleep, 600)
            case "hang_holding_the_lock":
                loop.call_later(0.5, ctypes.PyDLL(None).sleep, 600)
            case "fatal":
                loop.call_later(0.5, self.on_fatal, "a lane stalled", 71)

    async def stop(self, timeout_s: float) -> bool:
        say("stopping")
        if self.behaviour in {"slow_stop", "hung_stop"}:
            await asyncio.sleep(600 if self.behaviour == "hung_stop" else timeout_s)
            return False
        return True


async def answer(connection: KafkaConnection, timeout_s: float) -> BrokerAnswer:
    return BrokerAnswer("127.0.0.1", 9092, {})


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    if sys.argv[1] != "wait":
        cluster.reach = answer
    parts = Parts(
        load_streams=lambda: ScriptedStreams,
        on_listening=lambda url: say(f"listening {url}"),
        on_started=lambda _url: say("started"),
    )
    sys.exit(run_worker(check_worker(Settings.from_environment()), parts))
