"""A process of the fuzzer ends when its time is over."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fuzz.child import LOOK_EVERY, Run


def test_a_run_stays_over_when_its_time_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that hypothesis draws go on for the rest of a round."""
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_args, **_options: None)
    meter: Any = SimpleNamespace(inputs=0)
    run = Run(meter, tmp_path, inputs=10**12, seconds=-1)
    for meter.inputs in range(3 * LOOK_EVERY):
        assert run.over()
