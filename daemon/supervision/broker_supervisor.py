"""Supervises the embedded broker and registry of a worker: restarts one that exits unexpectedly, on the same data."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, Protocol, Self

import structlog

from inferd.daemon.broker.errors import BrokerError

POLL_S = 0.5
RESTARTS_MAX = 5
log = structlog.get_logger(__name__)


class Broker(Protocol):
    """What is supervised; implemented by `EmbeddedKafka` and `EmbeddedRegistry`."""

    def start(self) -> None:
        """Starts the broker; returns once it answers."""

    def stop(self) -> None:
        """Stops the broker gracefully."""

    def wait(self, timeout_s: float) -> int | None:
        """Exit code if the broker ends within `timeout_s`, else None."""


class SupervisedBroker:
    """Context manager that keeps the broker running. `on_lost` receives the reason if it cannot be restarted."""

    def __init__(
        self,
        broker: Broker,
        on_lost: Callable[[str], None],
        poll_s: float = POLL_S,
        name: Literal["broker", "registry"] = "broker",
    ) -> None:
        self._broker, self._on_lost, self._poll_s = broker, on_lost, poll_s
        self._name = name
        self._restarts = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"{name}-supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._broker.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # The broker is not thread-safe.
        self._thread.join()
        self._broker.stop()

    def _watch(self) -> None:
        while not self._ended.wait(self._poll_s):
            code = self._broker.wait(0)
            if code is not None and not self._restart(code):
                return

    def _restart(self, code: int) -> bool:
        self._restarts += 1
        if self._restarts > RESTARTS_MAX:
            self._on_lost(f"the {self._name} exited unexpectedly {self._restarts} times, last with exit code {code}")
            return False
        log.warning("broker_restarts", what=self._name, exit_code=code, restarts=self._restarts)
        try:
            self._broker.start()
        except BrokerError as error:
            self._on_lost(error.message)
            return False
        return True
