"""Versions that pass their trial and misbehave in a worker: their manifests say how, in the label `chaos`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal

from inferd.streams.inference import loading

Misbehaviour = Literal["raises", "slow"]
LABEL = "chaos"
SLOW_S = 0.4
"""How long a slow version takes for a micro-batch."""


class _Bad:
    """A runtime that misbehaves once it serves."""

    def __init__(self, runtime: Any, how: Misbehaviour) -> None:
        self._runtime, self._how = runtime, how

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def predict(self, inputs: Any, outputs: Any) -> Any:
        if self._how == "raises":
            raise RuntimeError("a bad version")
        time.sleep(SLOW_S)
        return self._runtime.predict(inputs, outputs)


def install() -> None:
    """Lets versions with the label misbehave in this process; trials run in others."""
    from inferd.streams.models import loader, on_demand

    load = loading.load_model

    def load_model(*args: Any, **options: Any) -> Any:
        served = load(*args, **options)
        how: Any = (served.manifest.labels or {}).get(LABEL)
        return served if how is None else replace(served, runtime=_Bad(served.runtime, how))

    for module in (loader, on_demand):
        setattr(module, "load_model", load_model)  # noqa: B010
