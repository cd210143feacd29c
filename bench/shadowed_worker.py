"""`inferd worker` whose versions misbehave as shadows: `RAISING` raises; from `HANGING` on, even ones block in a call
and odd ones loop in Python."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

from inferd.daemon.cli import main
from inferd.streams.inference import Arrays, Inputs, ServedModel, load_model
from inferd.streams.models import loader

RAISING, HANGING = 3, 4
BLOCKED_S = 60.0
SHADOW_THREAD = "inferd-shadow"


class Misbehaving:
    """A runtime that works, except in the thread of shadow versions."""

    def __init__(self, runtime: Any, version: int) -> None:
        self._runtime, self._version = runtime, version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def predict(self, inputs: Inputs, outputs: tuple[str, ...]) -> Arrays:
        """Like `ModelRuntime.predict`."""
        if threading.current_thread().name == SHADOW_THREAD:
            if self._version == RAISING:
                raise RuntimeError("as it is meant to")
            ends = time.monotonic() + BLOCKED_S
            while self._version % 2 and time.monotonic() < ends:
                pass
            time.sleep(BLOCKED_S)
        found: Arrays = self._runtime.predict(inputs, outputs)
        return found


def patch() -> None:
    """Replaces the runtimes of these versions when they are loaded."""

    def load(*arguments: Any) -> ServedModel:
        served = load_model(*arguments)
        version = served.manifest.version
        if version < RAISING:
            return served
        return dataclasses.replace(served, runtime=Misbehaving(served.runtime, version))

    loader.__dict__["load_model"] = load


if __name__ == "__main__":
    patch()
    main()
